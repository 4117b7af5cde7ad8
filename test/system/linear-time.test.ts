import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { isNotModified } from '../../src/cache/conditional.ts'
import { parseDirectives } from '../../src/cache/fields.ts'
import { varyNames } from '../../src/cache/key.ts'
import { ANONYMOUS, clientOf, outOfScope } from '../../src/clients/client.ts'
import { isAccessAllowed } from '../../src/clients/network-access.ts'
import { presets } from '../../src/config/presets/index.ts'
import { EchoGuard } from '../../src/credentials/scrub.ts'
import { dateOf } from '../../src/http/date.ts'
import { membersOf } from '../../src/http/fields.ts'
import { retryAfterOf } from '../../src/http/retry-after.ts'
import { readRequestOptions } from '../../src/gateway/request-options.ts'
import { type EpochMs, systemClock } from '../../src/time/clock.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { parseReset, readFeedback } from '../../src/ledger/feedback.ts'
import { accountInPath, collectClaims } from '../../src/routing/account.ts'
import { decodePath, normalizePath, readingsOf, redactPath } from '../../src/routing/path.ts'
import { PathPattern } from '../../src/routing/path-pattern.ts'
import { classifyByMethod } from '../../src/routing/route.ts'
import { RouteTable } from '../../src/routing/route-table.ts'
import { chooseType } from '../../src/server/respond.ts'
import { requestHeaders } from '../../src/upstream/headers.ts'
import { growsLinearly } from '../support/growth.ts'

const SIZE = 500
const NOW = 0 as EpochMs

const TRIPLE = '/tri/{a}-{b}-{c}'
const MANY = `/tri/${Array.from({ length: 12 }, (_, i) => `{n${i}}`).join('-')}/end`

function callTo(path: string) {
  return { upstream: 'u', class: 'read', method: 'GET', path, aliasPrefix: '' }
}

function tableOf(...paths: string[]): RouteTable {
  const layer = paths.map((path) => ({ path, rule: { class: 'read' } }))
  return new RouteTable({ layers: [layer], classify: classifyByMethod })
}

const claims = { headers: [], query: new Set(['account']), inPath: () => [] }
const hop = {
  host: 'h',
  peerAddress: '::1',
  isSecure: false,
  correlationId: 'c',
  droppedNames: new Set<string>(),
  forward: [],
}
const echoes = new EchoGuard({ upstream: 'u', account: 'a', metrics: new Metrics(), clock: systemClock })

/** What is read, and an input of that size which is hard to read in any other way than from left to right. */
const READERS: Record<string, (size: number) => () => unknown> = {
  'a client’s paths, three names in a segment': (size) => {
    const client = clientOf('c', { paths: [TRIPLE] })
    const call = callTo(`/tri/${'-'.repeat(size)}/x`)
    return () => outOfScope(client, call)
  },
  'a client’s paths, twelve names in a segment': (size) => {
    const client = clientOf('c', { paths: [MANY] })
    const call = callTo(`/tri/${'-'.repeat(size)}/endless`)
    return () => outOfScope(client, call)
  },
  'a route with three names in a segment': (size) => {
    const table = tableOf(TRIPLE, MANY, '/tri/{a}.{b}', '/*')
    const path = `/tri/${'-'.repeat(size)}/x`
    return () => table.locate('GET', path, '')
  },
  'a route, with escapes of escapes': (size) => {
    const table = tableOf(TRIPLE, '/tri/{a}/{b}')
    const path = `/tri/${'%25'.repeat(size)}2F-`
    return () => table.locate('GET', path, '')
  },
  'an account claim in a path': (size) => {
    const pattern = new PathPattern('/tri/{x}-{account}-{y}-{z}')
    const path = `/tri/${'-'.repeat(size)}/x`
    return () => accountInPath(pattern, path)
  },
  'account claims in a query without values': (size) => {
    const query = 'a&'.repeat(size)
    return () => collectClaims(claims, [], query, {})
  },
  'escapes nested in escapes': (size) => {
    const path = `/${'%25'.repeat(size)}${'2'.repeat(size)}`
    return () => decodePath(path)
  },
  'escapes of single characters': (size) => {
    const path = '/%2F%5c;%252e'.repeat(size)
    return () => readingsOf(path)
  },
  'slashes, dots and parameters': (size) => {
    const path = '//./;a/..'.repeat(size)
    return () => [normalizePath(path, '/x'), readingsOf(path), redactPath(path, [1])]
  },
  'network access lists': (size) => {
    const url = `https://h/${'a;/%2f'.repeat(size)}`
    const layers = [{ allowed: ['https://h/'], blocked: ['https://h/b', '*.h', 'https://h/a/a'] }]
    return () => isAccessAllowed(url, layers)
  },
  'Accept, with a quote that is not closed': (size) => {
    const request = { headers: { accept: `a/b;q="${','.repeat(size)}` } } as IncomingMessage
    return () => chooseType({ request, upstream: undefined })
  },
  'Cache-Control, with a quote that is not closed': (size) => {
    const field = `"${String.raw`\"`.repeat(size)}`
    return () => parseDirectives(field)
  },
  'Cache-Control, with blanks': (size) => {
    const field = `a=${' \t'.repeat(size)}b`
    return () => parseDirectives(field)
  },
  'If-None-Match, with odd quotes': (size) => {
    const field = 'W/"'.repeat(2 * size + 1)
    const entry = { headers: ['etag', '"x"'] } as never
    return () => isNotModified(entry, { 'if-none-match': field }, NOW)
  },
  Vary: (size) => {
    const field = ' , a'.repeat(size)
    return () => varyNames(field)
  },
  'lists with quotes and weekdays': (size) => {
    const field = `"\\"${'mon, "\\",'.repeat(size)}`
    return () => membersOf(field)
  },
  'Retry-After, Date, and resets': (size) => {
    const field = `1${'0.'.repeat(size)}`
    const fields = { 'retry-after': `mon, ${' 1'.repeat(size)}`, date: `${' '.repeat(size)}x` }
    return () => [retryAfterOf(fields, NOW), dateOf(fields, NOW), parseReset(`${field}m`, NOW)]
  },
  'RateLimit and X-RateLimit': (size) => {
    const field = '"a;r=1;'.repeat(size)
    const fields = { ratelimit: field, 'ratelimit-policy': field, 'x-ratelimit-limit': ';w = '.repeat(size) }
    return () => readFeedback(fields, NOW)
  },
  'X-Sluice headers': (size) => {
    const value = '1'.repeat(size)
    return () => readRequestOptions({ 'x-sluice-max-wait': value }, { maxWaitMs: 0, priority: ANONYMOUS.priority })
  },
  Via: (size) => {
    const raw = ['Via', `${'('.repeat(size)}${'(a'.repeat(size)}${' '.repeat(size)}${',1.1'.repeat(size)}`]
    return () => requestHeaders(raw, hop)
  },
  'cookies and Connection': (size) => {
    const raw = ['Cookie', `sluice${' ;sluice'.repeat(size)}`, 'Connection', ' a,'.repeat(size)]
    return () => requestHeaders(raw, hop)
  },
  'a header that repeats a part of a credential': (size) => {
    const scrub = echoes.against('Bearer aaaaaaaaaaaaaaaaaaaaaaaaaab', 'c')!
    const value = 'a'.repeat(size)
    return () => scrub.text(value, 'header')
  },
}

describe('what clients and upstreams send is read in time proportional to its length', () => {
  it.each(Object.keys(READERS))('%s', (name) => {
    expect(growsLinearly(READERS[name]!, SIZE)).toBe(true)
  })

  const HARD = [
    '-',
    'a',
    'A',
    '.',
    '/',
    '%2F',
    '/list',
    '/a-',
    'aA',
    'v1',
    '/v1',
    '_V1',
    '/webhook',
    '/account/',
    'artifacts',
  ]
  const PREFIXES = ['/', '/ng/api/account/', '/ssca-manager/', '/rest/api/3/issue/', '/v1/apps/', '/code/api/v1/repos/']

  it.each(Object.keys(presets))('paths of the preset %s', (name) => {
    const preset = presets[name]!
    const table = new RouteTable({ layers: [preset.routes()], classify: preset.classify })
    const hard = PREFIXES.flatMap((prefix) => HARD.map((text) => (size: number) => `${prefix}${text.repeat(size)}!`))
    const prepare = (pathOf: (size: number) => string) => (size: number) => {
      const path = pathOf(size)
      return () => [
        ...['GET', 'POST'].map((method) => table.locate(method, path, '')),
        preset.accountsInPath?.(path),
        preset.proposedCache?.map(({ paths }) => paths.test(path)),
      ]
    }
    for (const pathOf of hard) expect(growsLinearly(prepare(pathOf), SIZE), pathOf(2)).toBe(true)
  })
})
