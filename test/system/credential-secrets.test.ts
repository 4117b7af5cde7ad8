import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { systemClock } from '../../src/time/clock.ts'
import { newFolder, startUpstream, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { runCommand } from '../support/command-line.ts'
import { Program } from '../support/process.ts'
import { bearerOf, startTokenServer } from '../support/token-server.ts'
import { VaultServer } from '../support/vault-server.ts'

/** Of what every secret here is made of, once in the middle so that no encoding hides it at a border. */
const MARK = 'k3epTh1sHidden'
const value = (name: string): string => `${name}-${MARK}-value`

/** How it would look in the places where it may turn up. */
const ENCODED = [
  MARK,
  MARK.toLowerCase(),
  Buffer.from(MARK).toString('hex'),
  // Whatever stands before it, Base64 shows one of three.
  ...[0, 1, 2].map((offset) => {
    const text = Buffer.from('x'.repeat(offset) + MARK).toString('base64')
    return text.slice(Math.ceil((offset * 4) / 3) + (offset === 0 ? 0 : 1), -5)
  }),
]

function expectHidden(where: string, text: string): void {
  expect(text.length, where).toBeGreaterThan(0)
  for (const form of ENCODED) expect(text.includes(form), `${where} has a secret: ${form}`).toBe(false)
}

it('finds secrets in every encoding, or would prove nothing', () => {
  for (const prefix of ['', 'a', 'ab', 'abc', 'user:']) {
    const text = prefix + value('x')
    for (const encoding of ['utf8', 'hex', 'base64', 'base64url'] as const) {
      const encoded = Buffer.from(text).toString(encoding)
      expect(ENCODED.some((form) => encoded.includes(form))).toBe(true)
    }
  }
})

it.each(['file', 'redis'] as const)(
  'no secret of any type of credential is said or stored in clear, refused and rotated as they are: store in %s',
  async (kind) => {
    const vault = await new VaultServer(systemClock).start()
    vault.secrets.set('kv/api', { data: { key: value('vault') } })
    const tokens = await startTokenServer(3_600)
    tokens.extra = { access_token: value('access-token') }
    const failing = await startTokenServer()
    failing.isUp = false
    // It tells everything that it gets in its own words, as error pages do.
    const upstream = await startUpstream(({ headers, url }, response) => {
      const isRefused = url.startsWith('/refused') || bearerOf(headers)?.startsWith('bad') === true
      response.writeHead(isRefused ? 401 : 200).end()
    })
    const cwd = newFolder()
    writeFileSync(join(cwd, 'file-secret'), value('file'))
    const env = { ENV_SECRET: value('env'), MASTER_KEY: randomBytes(32).toString('base64') }
    const redisStore = stores.Redis()
    const oauth = { type: 'oauth2', tokenUrl: tokens.url, clientId: 'me', clientSecret: '${env:ENV_SECRET}' }
    const credentials: Record<string, object> = {
      header: { credential: { header: 'x-key', value: 'Key ${file:file-secret}' } },
      basic: { credential: { type: 'basic', username: 'me', password: '${env:ENV_SECRET}' } },
      query: { credential: { type: 'query', parameter: 'key', value: '${vault:kv/api#key}' } },
      oauth: { credential: oauth },
      failing: { credential: { ...oauth, tokenUrl: failing.url } },
      rotating: { credential: { type: 'bearer', value: '${secret:api}', canary: '100%' } },
      pool: {
        credentials: [
          { name: 'a', type: 'bearer', value: `bad-${value('pool')}` },
          { name: 'b', type: 'bearer', value: value('pool') },
        ],
      },
      signed: {
        credential: {
          type: 'sigv4',
          accessKeyId: 'AKIDEXAMPLE12345',
          secretAccessKey: '${secret:api}',
          region: 'x',
          service: 'x',
        },
      },
    }
    const upstreams = Object.fromEntries(
      Object.entries(credentials).map(([name, account]) => [name, { url: upstream.url, accounts: { main: account } }]),
    )
    const config = {
      server: { port: 0 },
      admin: { port: 0 },
      log: { level: 'debug' },
      store: kind === 'redis' ? redisStore : { dir: 'data' },
      secrets: {
        key: '${env:MASTER_KEY}',
        vault: { url: vault.url, roleId: vault.roleId, secretId: vault.secretId, refresh: '1s' },
      },
      upstreams,
    }
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
    const commands = [await runCommand(['credentials', 'set', 'api'], { cwd, env, input: value('store') })]
    const gateway = new Program(['start'], { cwd, env })
    const { url, admin } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string; admin: string }
    const said: string[] = []
    const callAll = async (): Promise<void> => {
      for (const name of Object.keys(upstreams)) {
        for (const path of ['x', 'refused']) {
          const { status, rawHeaders, body } = await call(url, `/${name}/${path}`, { method: 'POST', body: 'b' })
          said.push(`${name} ${path} ${status} ${rawHeaders.join(' ')} ${body}`)
        }
      }
    }
    await callAll()
    commands.push(await runCommand(['credentials', 'rotate', 'api'], { cwd, env, input: `bad-${value('next')}` }))
    await expect
      .poll(async () => {
        await call(url, '/rotating/x')
        return (await call(admin, '/metrics')).body
      })
      .toMatch(/sluice_credential_rollbacks_total\{upstream="rotating",account="main"\} 1/)
    await callAll()
    // The same whatever the store.
    const others = kind === 'file' ? [['credentials', 'list'], ['explain', 'GET', '/oauth/x'], ['check']] : []
    commands.push(...(await Promise.all(others.map((args) => runCommand(args, { cwd, env })))))
    writeFileSync(join(cwd, 'file-secret'), `${value('two')}\nlines`)
    await gateway.line(/can not be renewed/)
    for (const path of ['/metrics', '/v1/credentials', '/v1/accounts', '/v1/upstreams', '/v1/quota']) {
      said.push(`${path} ${(await call(admin, path)).body}`)
    }
    expectHidden('command line of the process', readFileSync(`/proc/${gateway.child.pid}/cmdline`, 'utf8'))
    gateway.kill('SIGTERM')
    await gateway.ended
    // That there was something to hide: the upstream and the token endpoint got it.
    expect(
      upstream.seen.map((seen) => JSON.stringify(seen)).filter((text) => text.includes(MARK)).length,
    ).toBeGreaterThan(5)
    expect(tokens.requests.length).toBeGreaterThan(0)
    expect(said.find((text) => text.startsWith('failing'))).toContain('credential_unavailable')
    for (const text of said) expectHidden(text.slice(0, 30), text)
    for (const { stdout, stderr } of commands) expectHidden('a command', stdout + stderr)
    expectHidden('the log', gateway.stdout + gateway.stderr)
    if (kind === 'redis') {
      const redis = new Redis(inject('redisUrl'))
      onTestFinished(() => redis.disconnect())
      const keys = await redis.keys(`${redisStore.prefix}:*`)
      expect(keys.filter((key) => /:(secrets|token:2:\w+)$/.test(key)).length).toBe(2)
      for (const key of keys) expectHidden(key, `${key} ${await contentOf(redis, key)}`)
    } else {
      for (const file of readdirSync(join(cwd, 'data'), { recursive: true, withFileTypes: true })) {
        if (file.isFile())
          expectHidden(file.name, `${file.name} ${readFileSync(join(file.parentPath, file.name), 'utf8')}`)
      }
      expect(readFileSync(join(cwd, 'data/secrets.json'), 'utf8')).toContain('"api"')
    }
  },
  180_000,
)

async function contentOf(redis: Redis, key: string): Promise<string> {
  switch (await redis.type(key)) {
    case 'hash':
      return JSON.stringify(await redis.hgetall(key))
    case 'string':
      return (await redis.get(key)) ?? ''
    default:
      return ''
  }
}
