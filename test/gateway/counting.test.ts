import { expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { countedAnew } from '../../src/gateway/counting.ts'

const READS = [{ requests: 100, window: '60s' }]

function upstreamsOf(limits: object, keys: readonly string[] = ['one', 'other']) {
  const accounts = Object.fromEntries(keys.map((value, i) => [`account-${i}`, { credential: { value } }]))
  const upstreams = { api: { url: 'http://127.0.0.1:9', accounts, limits: { read: READS, ...limits } } }
  return checkConfig({ upstreams }, 'test').upstreams
}

it.each<[string, object, readonly string[]]>([
  ['with a limit over all accounts', { write: [{ requests: 10, window: '60s', scope: 'upstream' }] }, ['one', 'other']],
  ['where two accounts come to share a credential that has a limit', { read: READS }, ['one', 'one']],
])('all limits of an upstream begin to count anew %s, and without it', (_, limits, keys) => {
  const isByCredential = keys[0] === keys[1]
  const common = isByCredential ? { write: [{ requests: 10, window: '60s', scope: 'credential' }] } : {}
  const [before, after] = [upstreamsOf(common), upstreamsOf({ ...limits, ...common }, keys)]
  expect(countedAnew(before, after)).toEqual(['api'])
  expect(countedAnew(after, before)).toEqual(['api'])
  expect(countedAnew(before, upstreamsOf({ ...common, search: READS }))).toEqual([])
  expect(countedAnew({}, after)).toEqual([])
})
