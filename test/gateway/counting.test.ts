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

it('limits by credential begin to count anew without the first account, by name, of those that have it', () => {
  const limits = { write: [{ requests: 10, window: '60s', scope: 'credential' }] }
  const without = (name: string, limits: object) => {
    const { api } = upstreamsOf(limits, ['one', 'one', 'one', 'other'])
    const { [name]: _, ...accounts } = api!.accounts
    return { api: { ...api!, accounts } }
  }
  const all = without('', limits)
  expect(countedAnew(all, without('account-0', limits))).toEqual(['api'])
  for (const name of ['account-1', 'account-3']) expect(countedAnew(all, without(name, limits))).toEqual([])
  expect(countedAnew(without('', {}), without('account-0', {}))).toEqual([])
})
