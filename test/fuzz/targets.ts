import { readdirSync, readFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import type { EpochMs } from '../../src/time/clock.ts'
import { systemClock } from '../../src/time/clock.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { ageOf, parseDirectives, secondsOf } from '../../src/cache/fields.ts'
import { parseDate, parseHttpDate } from '../../src/http/date.ts'
import { type Fields, joined } from '../../src/http/fields.ts'
import { retryAfterOf } from '../../src/http/retry-after.ts'
import { parseConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/config/problem.ts'
import { EchoGuard } from '../../src/credentials/scrub.ts'
import { isFailure } from '../../src/gateway/failure.ts'
import { identify, type Identity } from '../../src/gateway/identify.ts'
import { buildSnapshot } from '../../src/gateway/snapshot.ts'
import { readRequestOptions } from '../../src/gateway/request-options.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { Usage } from '../../src/usage/usage.ts'
import { readFeedback } from '../../src/ledger/feedback.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { requestHeaders, responseHeaders } from '../../src/upstream/headers.ts'
import { README } from '../support/readme.ts'
import type { Mutator } from './mutate.ts'

/** Tries one input; says what is wrong, if anything is. What is tried is told to `note` before. */
export type Target = (mutator: Mutator, note: (input: unknown) => void) => string | undefined

const SIGNS = [
  '',
  ' ',
  '\t',
  '\r\n',
  '\n',
  '\0',
  ',',
  ';',
  '=',
  '"',
  "'",
  '\\',
  '%',
  '%00',
  '%2e%2e',
  '..',
  '/',
  '//',
  '#',
  '?',
  '&',
]
const NUMBERS = ['0', '-1', '1e309', '9'.repeat(30), '0x10', 'NaN', 'Infinity', '1.5', '+1', '١']
const NAMES = ['__proto__', 'constructor', 'toString', 'null', 'undefined', 'true', '[]', '{}', '${env:X}', '${file:x}']

/** A configuration is taken, or refused with its problems and where they are. */
export function configTarget(): Target {
  const folder = new URL('../../deploy/examples/', import.meta.url)
  const examples = readdirSync(folder).map((name) => readFileSync(new URL(name, folder), 'utf8'))
  const seeds = [...examples, ...[...README.matchAll(/```yaml\n([^]*?)```/g)].map(([, text = '']) => text)]
  const words = [
    ...SIGNS,
    ...NUMBERS,
    ...NAMES,
    ': ',
    '- ',
    '\n  ',
    '&a ',
    '*a',
    '<<: *a',
    '!!binary ',
    '---\n',
    '|\n',
    '60s',
    '10%',
  ]
  return (mutator, note) => {
    const text = mutator.text(seeds, words)
    note(text)
    try {
      parseConfig(text, { env: { HARNESS_API_KEY: 'key', TICKETS_TOKEN: 'token', REDIS_URL: 'redis://x' } })
    } catch (error) {
      if (!(error instanceof ConfigError)) return `threw ${String(error)}`
      if (error.problems.length === 0) return 'was refused without a reason'
    }
    return undefined
  }
}

/** Every request target leads somewhere or is refused, and none out of the upstream's base path. */
export function pathTarget(): Target {
  const clock = systemClock
  const yaml = `
upstreams:
  harness: { preset: harness, accounts: { prod: { id: acct1234, credential: { value: key-of-the-vendor } } } }
  api: { url: 'https://api.example/base', hosts: [own.example], accounts: { main: { id: a, credential: { value: other } } } }
clients: { tool: { keys: ['${hashKey('slk_fuzz')}'] } }
defaultUpstream: harness`
  const metrics = new Metrics()
  const services = {
    clock,
    random: () => 0.5,
    metrics,
    usage: new Usage({ metrics, clock }),
    ledger: new MemoryLedger(clock),
    onBreakerChange: () => undefined,
  }
  const snapshot = buildSnapshot(parseConfig(yaml, {}), services)
  const seeds = [
    ...[
      '/harness/ng/api/projects?accountIdentifier=acct1234',
      '/api/x/y',
      'http://own.example/x',
      '/gateway/ng/api/accounts/acct1234',
    ],
    ...[
      '/harness/pipeline/api/webhook/custom/token/v3',
      '//x//y',
      '/harness/template/api/templates/a%2Fb',
      'http://x/api',
      '/api',
      '/',
    ],
  ]
  const words = [
    ...SIGNS,
    ...NAMES,
    '%2f',
    '%5c',
    '\\',
    '/../',
    '/./',
    ';a=b',
    '%252e',
    '%c0%ae',
    'http://',
    '@',
    ':80',
    'accountId=x',
    '*',
  ]
  return (mutator, note) => {
    const url = mutator.text(seeds, words)
    const method = mutator.oneOf(['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'])
    const headers: IncomingHttpHeaders = {
      host: mutator.text(['gateway', 'own.example', 'OWN.example.:80'], words),
      'x-sluice-key': 'slk_fuzz',
    }
    if (mutator.below(3) === 0)
      headers[mutator.oneOf(['x-sluice-account', 'harness-account', 'x-tenant-id'])] = mutator.text(
        ['prod', 'acct1234'],
        words,
      )
    note([method, url, headers])
    const identity: Identity = { client: undefined, upstream: undefined, route: undefined, prefix: '', path: '' }
    const target = identify(snapshot, { method, url, headers, connection: {}, blockedMs: 0 } as never, identity)
    if (isFailure(target)) return target.kind === 'internal' ? 'is a mistake of the gateway' : undefined
    const { upstream, path } = target
    const sent = URL.parse(`${upstream.url.origin}${upstream.basePath}${path}`)
    if (sent === null) return 'is sent on as no URL'
    if (!path.startsWith('/') || !`${sent.pathname}/`.startsWith(`${upstream.basePath}/`))
      return `leaves the base path: ${sent.href}`
    return undefined
  }
}

const FIELDS: Record<string, readonly string[]> = {
  ratelimit: ['"read";r=847;t=13', '"a";r=1, "b";r=2;t=3'],
  'ratelimit-policy': ['"read";q=1000;w=60', '"a";q=1;w=2;pk=:x:'],
  'x-ratelimit-limit': ['1000', '1000, 1000;w=60'],
  'x-ratelimit-remaining': ['0', '999'],
  'x-ratelimit-reset': ['1700000000', '13', '6m0s', 'Wed, 21 Oct 2026 07:28:00 GMT'],
  'retry-after': ['120', 'Wed, 21 Oct 2026 07:28:00 GMT'],
  'cache-control': ['max-age=60, stale-if-error="30", private="a, b"', 'no-store'],
  'x-sluice-max-wait': ['5s', '0'],
  'x-sluice-timeout': ['500ms'],
  'x-sluice-priority': ['batch'],
  connection: ['close', 'keep-alive, x-a'],
  cookie: ['a=b; sluice_x=y; c=d'],
  date: ['Wed, 21 Oct 2026 07:28:00 GMT'],
  age: ['1'],
}

/** Headers of either side are read without a stumble, and give numbers that can be reckoned with. */
export function headerTarget(): Target {
  const names = Object.keys(FIELDS)
  const words = [
    ...SIGNS,
    ...NUMBERS,
    ...NAMES,
    ';w=',
    ';r=',
    ';t=',
    's',
    'ms',
    'GMT',
    'max-age',
    '*',
    ':YQ==:',
    '?1',
    '(',
    ')',
  ]
  const dropped = new Set(['x-api-key'])
  return (mutator, note) => {
    const fields: IncomingHttpHeaders & Fields = {}
    for (let left = 1 + mutator.below(4); left > 0; left--) {
      const name = mutator.oneOf(names)
      const text = mutator.text(FIELDS[name]!, words)
      // A response's field that came on two lines is a list.
      fields[name] = mutator.below(4) === 0 ? [text, mutator.text(FIELDS[name]!, words)] : text
    }
    note(fields)
    const now = 1_790_000_000_000 as EpochMs
    for (const { remaining, limit, windowMs, resetMs } of readFeedback(fields, now)) {
      if (
        ![remaining, limit, windowMs, resetMs].every(
          (number) => number === undefined || (Number.isFinite(number) && number >= 0),
        )
      )
        return `is heard as ${JSON.stringify([remaining, limit, windowMs, resetMs].map(String))}`
    }
    const wait = retryAfterOf(fields, now)
    if (wait !== undefined && !(wait >= 0 && Number.isFinite(wait))) return `waits for ${wait}`
    const options = readRequestOptions(fields, { maxWaitMs: 10_000, priority: 'normal' })
    if (!isFailure(options) && !(options.maxWaitMs >= 0 && options.maxWaitMs <= 10_000))
      return `may wait for ${options.maxWaitMs}`
    const seconds = secondsOf(parseDirectives(fields['cache-control']), 'max-age') ?? 0
    if (!(seconds >= 0 && ageOf(fields) >= 0)) return `is fresh for ${seconds}`
    const dates = [parseHttpDate(fields.date, now), parseDate(joined(fields.date), now)]
    if (dates.some((date) => Number.isNaN(date))) return 'is of no date'
    const raw = Object.entries(fields).flatMap(([name, value]) => [name, String(value)])
    const hop = {
      host: 'gateway',
      peerAddress: '127.0.0.1',
      isSecure: false,
      correlationId: 'id',
      droppedNames: dropped,
      forward: [],
    }
    const sent = requestHeaders([...raw, 'X-Api-Key', 'mine'], hop)
      .filter((_, i) => i % 2 === 0)
      .map((name) => name.toLowerCase())
    if (sent.some((name) => name.startsWith('x-sluice') || name === 'connection' || name === 'x-api-key'))
      return `sends ${sent.join()}`
    responseHeaders(fields, true)
    return undefined
  }
}

/** A body comes out as long as it went in, without the credential, and as it was if that was not in it. */
export function scrubTarget(): Target {
  const secret = 'aab/aab+aabaab=c'
  const guard = new EchoGuard({ upstream: 'u', account: 'a', metrics: new Metrics(), clock: systemClock })
  const words = [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64'), 'aab', 'a', '\n']
  return (mutator, note) => {
    const body = Buffer.from(mutator.text([`x${secret}y`, 'aab/aab+aabaab', '{"a":"b"}', `aab${secret}`], words))
    const scrub = guard.against(secret, 'id')!
    scrub.head({})
    const out: Buffer[] = []
    const cuts: number[] = []
    for (let at = 0; at < body.length;) {
      const end = at + 1 + mutator.below(12)
      cuts.push(end)
      const piece = scrub.piece(body.subarray(at, end))
      if (piece !== undefined) out.push(piece)
      at = end
    }
    note([body.toString(), cuts])
    const whole = Buffer.concat([...out, scrub.rest() ?? Buffer.alloc(0)])
    if (whole.length !== body.length) return `comes out with ${whole.length} bytes`
    if (whole.includes(secret)) return 'comes out with the credential'
    if (!whole.includes('*') && !whole.equals(body)) return 'comes out as something else'
    return undefined
  }
}
