import { once } from 'node:events'
import { mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { deadPort } from './find-redis.ts'
import { ACCOUNT, harnessConfig, newFolder } from './gateway.ts'
import { type Answer, call, type CallOptions, RawClient } from './http.ts'
import { startProcess } from './process.ts'

/** What the end of every secret in `everyOutcome` is, and of nothing else. */
export const SECRET = '-secret'

const KEYS = { tool: 'slk_tool-secret', reader: 'slk_reader-secret' }
const ADMIN_TOKEN = 'admin-secret'
const PATH = '/harness/ng/api/projects'
/** One that is charged to a small quota. */
const SCARCE_PATH = '/harness/template/api/templates/template_1'

export interface EveryOutcome {
  /** The outcome that each call was made for, by its correlation id. */
  readonly expected: ReadonlyMap<string, string>
  /** To the calls, as far as there were any, and of the admin port. */
  readonly answers: readonly Answer[]
  readonly metrics: string
  /** All that the process wrote, to its end. */
  readonly output: string
}

let outcome: Promise<EveryOutcome> | undefined

/**
 * Runs a gateway process in front of a sandbox and makes calls that end in every way that a call can, with secrets
 * wherever a call or a configuration may have some. All tests of a file look at one such run.
 */
export function everyOutcome(): Promise<EveryOutcome> {
  return (outcome ??= makeEveryOutcome())
}

async function makeEveryOutcome(): Promise<EveryOutcome> {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  const store = newFolder()
  const { passing, ...upstreams } = await upstreamsFor(sandbox.url)
  const config = configFor(sandbox.url, store)
  const gateway = await startProcess({ ...config, upstreams: { passing, ...upstreams } })
  const expected = new Map<string, string>()
  const answers: Answer[] = []
  const idFor = (outcome: string): string => {
    const id = `call-${expected.size}`
    expected.set(id, outcome)
    return id
  }
  const ask = async (outcome: string, path: string, { headers = {}, ...options }: CallOptions = {}): Promise<void> => {
    const id = idFor(outcome)
    const answer = await call(gateway.url, path, {
      ...options,
      headers: {
        'x-correlation-id': id,
        'x-sluice-key': KEYS.tool,
        'x-api-key': 'vendor-secret',
        cookie: 'session=cookie-secret',
        ...headers,
      },
    })
    answers.push(answer)
    if (answer.headers['x-sluice-error'] !== undefined) expect(answer.headers['x-sluice-error']).toBe(outcome)
  }
  const body = JSON.stringify({ password: 'body-secret' })

  await ask('delivered', `${PATH}?token=query-secret`)
  await ask('delivered', '/harness/pipeline/api/webhook/custom/hook-secret/v3', { method: 'POST', body })
  await ask('unauthenticated', PATH, { headers: { 'x-sluice-key': 'wrong-secret' } })
  await ask('unauthenticated', '/harness/pipeline/api/webhook/custom/hook-secret/v3', {
    method: 'POST',
    headers: { 'x-sluice-key': '', authorization: 'Bearer bearer-secret' },
  })
  await ask('unknown_upstream', '/nowhere/path-secret?token=query-secret')
  await ask('invalid_request', '/harness/%zz/path-secret')
  await ask('invalid_request', PATH, { headers: { 'x-sluice-max-wait': 'wait-secret' } })
  await ask('forbidden', PATH, { method: 'POST', body, headers: { 'x-sluice-key': KEYS.reader } })
  for (const outcome of ['delivered', 'share_exceeded']) {
    await ask(outcome, PATH, { headers: { 'x-sluice-key': KEYS.reader } })
  }
  await ask('account_mismatch', `${PATH}?accountIdentifier=account-secret`)
  await ask('body_too_large', '/small/ng/api/projects', { method: 'POST', body: `${'x'.repeat(100)}-secret` })

  sandbox.setFaults({ status: 503, times: 1 })
  await ask('delivered', PATH)
  sandbox.setFaults({ status: 429, times: 1 })
  await ask('delivered', PATH)
  sandbox.setFaults({ status: 500 })
  await ask('delivered', PATH, { method: 'POST', body })
  sandbox.setFaults({ reset: 'before-headers' })
  await ask('interrupted', PATH)
  sandbox.setFaults({ reset: 'mid-body' })
  await expect(ask('broken_off', PATH)).rejects.toThrow('aborted')
  sandbox.setFaults({ stall: 'headers' })
  await ask('timeout', '/small/ng/api/projects')
  const leaver = await RawClient.connect(gateway.url)
  const id = idFor('client_gone')
  const seenBefore = sandbox.seen().length
  leaver.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: ${KEYS.tool}\r\nX-Correlation-Id: ${id}\r\n\r\n`)
  await expect.poll(() => sandbox.seen().length).toBe(seenBefore + 1)
  leaver.socket.destroy()
  await once(leaver.socket, 'close')
  sandbox.clearFaults()
  await ask('unreachable', '/dead/ng/api/projects')
  await ask('breaker_open', '/dead/ng/api/projects')
  for (let i = 0; i < 2; i++) await ask('delivered', '/cached/ng/api/projects?token=query-secret')
  await ask('not_cached', '/cached/ng/api/organizations', { headers: { 'cache-control': 'only-if-cached' } })

  const metrics = async (): Promise<string> => (await fetch(`${gateway.adminUrl}/metrics`)).text()
  await ask('delivered', SCARCE_PATH)
  await ask('quota_exhausted', SCARCE_PATH, { headers: { 'x-sluice-max-wait': '0' } })
  const waiting = ask('delivered', SCARCE_PATH)
  await expect.poll(metrics).toMatch(/^sluice_queue_depth\{.*class="template"\} 1$/m)
  await ask('queue_full', SCARCE_PATH)
  await waiting
  await ask('delivered', '/passing/ng/api/projects')
  await ask('credential_unavailable', '/locked/ng/api/projects', { headers: { 'x-sluice-account': 'token' } })
  const left = ask('credential_unavailable', '/passing/ng/api/projects')
  await expect.poll(metrics).toMatch(/^sluice_queue_depth\{upstream="passing",.*\} 1$/m)
  gateway.configure({ ...config, upstreams })
  await left
  // A charge must be written down beforehand, and can't be.
  renameSync(join(store, 'quota'), join(store, 'quota-away'))
  await ask('store_unavailable', SCARCE_PATH)
  mkdirSync(join(store, 'quota'))

  // From then on, nobody at this address is let in.
  for (const key of ['one-secret', 'two-secret', 'three-secret']) {
    await ask('unauthenticated', PATH, { headers: { 'x-sluice-key': key } })
  }
  await ask('too_many_attempts', PATH, { headers: { 'x-sluice-key': 'four-secret' } })

  for (const token of [ADMIN_TOKEN, 'other-secret']) {
    const { hostname, port } = new URL(gateway.adminUrl)
    const headers = { authorization: `Bearer ${token}` }
    answers.push(await call(`http://${hostname}:${port}`, '/v1/quota', { headers }))
  }
  const scraped = await metrics()
  gateway.kill('SIGTERM')
  await gateway.ended
  return { expected, answers, metrics: scraped, output: gateway.stdout + gateway.stderr }
}

async function upstreamsFor(url: string): Promise<{ passing: object } & Record<string, object>> {
  const accounts = { prod: { id: ACCOUNT, credential: { value: `pat.${ACCOUNT}.tokenid.credential-secret` } } }
  const shadow = [{ requests: 1, window: '1h', cost: 2, enforce: false }]
  const once = { retries: 1, baseDelay: '1ms', maxDelay: '1ms' }
  const { upstreams } = harnessConfig(url, {
    accounts,
    limits: { template: [{ requests: 1, window: '10s' }] },
    queue: { maxWait: '30s', maxWaiting: 1 },
    retry: once,
  }) as { upstreams: Record<string, object> }
  const dead = { url: `http://127.0.0.1:${await deadPort()}`, retry: { retries: 0 }, breaker: { failures: 1 } }
  const slow = { limits: { read: [{ requests: 1, window: '10s' }] }, queue: { maxWait: '30s' } }
  return {
    ...upstreams,
    small: { preset: 'harness', url, accounts, limits: { all: shadow }, maxBody: 50, timeouts: { headers: '100ms' } },
    dead: { preset: 'harness', accounts, ...dead },
    cached: { preset: 'harness', url, accounts, cache: { routes: 'proposed', freshFor: '1h' } },
    passing: { preset: 'harness', url, accounts, ...slow, price: { unit: 'usd', list: { default: { call: 0.01 } } } },
    locked: { preset: 'harness', url, accounts: lockedAccounts(dead.url) },
  }
}

/** One whose token can't be had, one that rotates, and one with several credentials. */
function lockedAccounts(deadUrl: string): object {
  const token = { type: 'oauth2', tokenUrl: `${deadUrl}/token`, clientId: 'me', clientSecret: 'client-secret' }
  const next = { value: 'next-secret' }
  return {
    token: { id: 'acct1', credential: token },
    rotating: { id: 'acct2', credential: { value: 'current-secret', expires: '2099-01-01', next } },
    pool: { id: 'acct3', credentials: [{ name: 'one', value: 'pool-secret' }] },
  }
}

function configFor(url: string, dir: string): object {
  return {
    ...harnessConfig(url),
    server: { port: 0, wrongKeys: { perAddress: 5, window: '1h' } },
    admin: { port: 0, token: ADMIN_TOKEN },
    store: { dir },
    clients: {
      tool: { keys: [hashKey(KEYS.tool)] },
      reader: {
        keys: [hashKey(KEYS.reader)],
        classes: ['read'],
        team: 'readers',
        budget: [{ requests: 1, window: '1h' }],
      },
    },
    teams: { readers: { organisation: 'acme', budget: [{ requests: 100, window: '1h' }] } },
    organisations: { acme: { budget: [{ requests: 1_000, window: '1h' }] } },
  }
}
