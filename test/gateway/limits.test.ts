import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { isFailure } from '../../src/gateway/failure.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { Admissions } from '../support/admissions.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const ROUTES = [
  { method: 'GET', path: '/*', class: 'read' },
  { method: 'POST', path: '/reports/{name}', class: 'read', cost: 10 },
  { path: '/*', class: 'write' },
]

function upstream(limits: object, rest: object = {}): object {
  return { url: 'http://127.0.0.1:1', limits: { read: [], write: [], ...limits }, routes: ROUTES, ...rest }
}

/** The ids of the limits that a call is charged to, each with its units. */
function charged(it: Admissions, method: string, path: string, options: object = {}): string[] {
  const target = it.target(method, path, options)
  if (isFailure(target)) throw new Error(target.message)
  const { limits, units } = target.admissionPolicy.chargeSet
  return limits.map(({ id }, i) => `${id} ${units[i]}`)
}

describe('a call', () => {
  it('is charged to the limits of its class, and to those of "all"', () => {
    const it = new Admissions(
      upstream({ all: [{ requests: 9, window: '1s' }], read: [{ requests: 5, window: '60s' }, { concurrent: 3 }] }),
    )
    expect(charged(it, 'GET', '/x')).toEqual(['read.60000 1', 'read.concurrent 1', 'all.1000 1'])
    expect(charged(it, 'PUT', '/x')).toEqual(['all.1000 1'])
  })

  it('waits in one queue with those that are charged to the same classes, in whatever order a route names them', () => {
    const routes = [
      { path: '/one', class: 'write', charges: ['write', 'read', 'search'] },
      { path: '/other', class: 'write', charges: ['search', 'read', 'write'] },
      ...ROUTES,
    ]
    const it = new Admissions(upstream({ search: [{ requests: 5, window: '60s' }] }, { routes }))
    const [one, other, plain] = ['/one', '/other', '/x'].map(
      (path) => it.send('PUT', path).target!.admissionPolicy.queue,
    )
    expect(other).toBe(one)
    expect(plain).not.toBe(one)
  })

  it('costs what the limit says: a number, by method, what its route says, or by its body', () => {
    const it = new Admissions(
      upstream({
        all: [
          { requests: 100, window: '60s', cost: 5 },
          { requests: 100, window: '60s', cost: { GET: 1, PUT: 0, default: 3 } },
          { requests: 100, window: '60s', cost: 'route' },
          { requests: 100, window: '60s', cost: { bytes: 1000 } },
        ],
      }),
    )
    const sized = (bytes: number) => ({ headers: { 'content-length': String(bytes) } })
    const [by5, byMethod, byRoute, byBytes] = ['by-5', 'by-method', 'by-route', 'by-1000-bytes'].map(
      (cost) => `all.60000:${cost}`,
    )
    expect(charged(it, 'GET', '/x')).toEqual([`${by5} 5`, `${byMethod} 1`, `${byRoute} 1`])
    expect(charged(it, 'HEAD', '/x')).toEqual([`${by5} 5`, `${byMethod} 1`, `${byRoute} 1`])
    expect(charged(it, 'POST', '/reports/a', sized(1_000))).toEqual([
      `${by5} 5`,
      `${byMethod} 3`,
      `${byRoute} 10`,
      `${byBytes} 1`,
    ])
    expect(charged(it, 'PUT', '/x', sized(1_001))).toEqual([`${by5} 5`, `${byRoute} 1`, `${byBytes} 2`])
  })

  it('is charged to the pace of a limit, too, no more than may go at once, unless the limit is not enforced', () => {
    const paced = { requests: 100, window: '60s', pace: 'even', burst: 3, cost: 5 }
    const it = new Admissions(upstream({ read: [paced, { ...paced, name: 'shadow', enforce: false }] }))
    // Three in the time of three, less three in a hundred.
    expect(charged(it, 'GET', '/x')).toEqual([
      'read.60000:by-5 5',
      'read.60000:by-5:pace.1746 3',
      'read.60000:shadow:by-5 5',
    ])
  })

  it('counts by buckets of one length wherever its limits have one id, whatever a reload changes', () => {
    const lengths = new Map<string, number>()
    const reload = (requests: number, slack: string): void => {
      const paced = { requests, window: '60s', pace: 'even', burst: 5 }
      const it = new Admissions(upstream({ read: [{ ...paced }, { concurrent: 3 }] }, { slack }))
      for (const { id, bucketMs } of it.send('GET', '/x').target!.admissionPolicy.chargeSet.limits) {
        expect(lengths.get(id) ?? bucketMs, id).toBe(bucketMs)
        lengths.set(id, bucketMs)
      }
    }
    for (let requests = 990; requests < 1_010; requests++) reload(requests, '1s')
    for (const slack of ['0s', '500ms', '2s', '10s', '28s']) reload(1_000, slack)
    // The calls in flight are known by one id, so that they count on after a reload.
    expect([...lengths.keys()].filter((id) => id.startsWith('read.concurrent'))).toEqual(['read.concurrent'])
    for (const slack of ['30s', '40s', '24h']) reload(1_000, slack)
  })

  it('may go at once with all that its limit has in a millisecond, whatever its burst is', () => {
    const paced = { requests: 1_000_000, window: '60s', pace: 'even', burst: 1 }
    const { chargeSet } = new Admissions(upstream({ read: [paced] })).send('GET', '/x').target!.admissionPolicy
    expect(chargeSet.limits[1]).toMatchObject({ kind: 'smoothing', requests: 17 })
  })

  it('is charged to a limit with a condition only if it meets it', () => {
    const it = new Admissions(upstream({ write: [{ requests: 1, window: '10s', when: { bodyOver: 10 } }] }))
    expect(charged(it, 'PUT', '/x', { headers: { 'content-length': '10' } })).toEqual([])
    expect(charged(it, 'PUT', '/x', { headers: { 'content-length': '11' } })).toEqual(['write.10000:over-10-bytes 1'])
    expect(charged(it, 'PUT', '/x')).toEqual([])
  })

  it('of which only the end will tell the length is refused where a limit depends on it, and only there', () => {
    const limit = { requests: 5, window: '10s', cost: { bytes: 10 } }
    const it = new Admissions(upstream({ write: [limit] }))
    const headers = { 'transfer-encoding': 'chunked' }
    const shadow = new Admissions(upstream({ write: [{ ...limit, enforce: false }] }))
    expect(charged(shadow, 'PUT', '/x', { headers })).toEqual([])
    expect(it.target('PUT', '/x', { headers })).toMatchObject({
      kind: 'invalid_request',
      message: expect.stringContaining('needs a Content-Length'),
    })
    expect(charged(it, 'GET', '/x', { headers })).toEqual([])
  })

  it('that costs more than a limit ever allows is refused, for waiting would not help', () => {
    const limit = { requests: 5, window: '10s', cost: { bytes: 10 } }
    const headers = { 'content-length': '51' }
    expect(new Admissions(upstream({ write: [limit] })).target('PUT', '/x', { headers })).toMatchObject({
      kind: 'invalid_request',
      message: 'the call costs 6 units, and the write limit (10s by 10 bytes) never allows more than 5',
    })
    const shadow = new Admissions(upstream({ write: [{ ...limit, enforce: false }] }))
    expect(charged(shadow, 'PUT', '/x', { headers })).toEqual(['write.10000:by-10-bytes 6'])
  })

  it('finds its admission policy by one look-up where limits depend on its kind alone', () => {
    const it = new Admissions(upstream({ read: [{ requests: 5, window: '60s', cost: 2 }] }))
    const admissionPolicies = ['/a', '/b'].map((path) => it.send('GET', path).target!.admissionPolicy)
    expect(admissionPolicies[0]).toBe(admissionPolicies[1])
  })
})

describe('a limit', () => {
  it('leaves its headroom, or the upstream’s, to others', async () => {
    const limits = { read: [{ requests: 1000, window: '60s' }] }
    expect(await new Admissions(upstream(limits, { headroom: '10%' })).countAdmitted(1000, 'GET', '/x')).toBe(900)
    const own = { read: [{ requests: 10, window: '60s', headroom: '25%' }] }
    expect(await new Admissions(upstream(own, { headroom: '10%' })).countAdmitted(10, 'GET', '/x')).toBe(7)
    const one = { read: [{ requests: 1, window: '60s' }] }
    expect(await new Admissions(upstream(one, { headroom: '10%' })).countAdmitted(2, 'GET', '/x')).toBe(1)
  })

  it('of a calendar window begins anew with it, but for calls near its border', async () => {
    const it = new Admissions(
      upstream({ read: [{ requests: 3, window: '60s', kind: 'calendar' }] }, { slack: '500ms' }),
    )
    await it.clock.advance(50_000)
    expect(await it.countAdmitted(4, 'GET', '/x')).toBe(3)
    await it.clock.advance(10_600)
    expect(await it.countAdmitted(4, 'GET', '/x')).toBe(2) // the fourth waited
  })

  it('that is not enforced counts, but holds nothing back', async () => {
    const it = new Admissions(upstream({ read: [{ requests: 2, window: '60s', enforce: false }] }))
    expect(await it.countAdmitted(5, 'GET', '/x')).toBe(5)
    const { chargeSet } = it.send('GET', '/x').target!.admissionPolicy
    expect(await it.ledger.usage(chargeSet)).toMatchObject([{ used: 6, limit: { requests: 2 } }])
  })
})

it('the limit of an earlier configuration does not take the place of a later one, though its first call is later', async () => {
  const [before, after] = [90, 5].map((requests) => {
    return new Admissions(upstream({ read: [{ requests, window: '60s', scope: 'route', pace: 'even' }] }))
  }) as [Admissions, Admissions]
  const { chargeSet } = after.send('GET', '/x').target!.admissionPolicy
  const ledger = new MemoryLedger(new SimulatedClock())
  ledger.charge(chargeSet, 1)
  ledger.charge(before.send('GET', '/x').target!.admissionPolicy.chargeSet, 1)
  expect((await ledger.usage(chargeSet)).map(({ limit }) => limit)).toEqual(chargeSet.limits)
})

describe('a scope', () => {
  const key = (name: string) => ({ headers: { 'x-sluice-key': name } })
  const clients = { a: { keys: [hashKey('a')] }, b: { keys: [hashKey('b')] } }

  it('of clients counts each by itself, and does not let one wait for another', async () => {
    const it = new Admissions(upstream({ read: [{ requests: 2, window: '60s', scope: 'client' }] }), { clients })
    expect(charged(it, 'GET', '/x', key('a'))).toEqual(['read.60000:client=a 1'])
    expect(await it.countAdmitted(3, 'GET', '/x', key('a'))).toBe(2)
    expect(await it.countAdmitted(3, 'GET', '/x', key('b'))).toBe(2)
    // What waits is shown by class.
    const [account] = it.snapshot.upstreams.get('it')!.accounts.values()
    expect([...account!.admissionPolicies.waiting()]).toMatchObject([{ labels: { class: 'read' }, waiting: 2 }])
  })

  it('does not let calls wait that need not meet its condition, or are charged to another class beside', async () => {
    const limits = {
      read: [{ requests: 1, window: '60s' }],
      write: [
        { requests: 100, window: '60s' },
        { requests: 1, window: '60s', when: { bodyOver: 1_000 } },
      ],
    }
    const routes = [{ path: '/both', class: 'write', charges: ['write', 'read'] }, ...ROUTES]
    const it = new Admissions(upstream(limits, { routes }))
    const large = { headers: { 'content-length': '1001' } }
    expect(await it.countAdmitted(3, 'PUT', '/x', large)).toBe(1)
    expect(await it.countAdmitted(3, 'PUT', '/both')).toBe(1)
    expect(await it.countAdmitted(3, 'PUT', '/x')).toBe(3)
  })

  it('of routes counts each line of the table, and all other calls of a method together', async () => {
    const limits = { all: [{ requests: 2, window: '60s', scope: 'route' }] }
    const it = new Admissions(upstream(limits, { routes: [{ path: '/a/{id}', class: 'read' }] }))
    expect(charged(it, 'PUT', '/a/1')).toEqual(['all.60000:route=/a/{id} 1'])
    expect(await it.countAdmitted(3, 'GET', '/a/1')).toBe(2)
    expect(await it.countAdmitted(1, 'GET', '/a/2')).toBe(0)
    expect(await it.countAdmitted(3, 'GET', '/b')).toBe(2)
    expect(await it.countAdmitted(1, 'GET', '/c')).toBe(0)
    expect(await it.countAdmitted(1, 'PUT', '/c')).toBe(1)
  })

  it('of a segment counts by its text, in a bounded number of groups', () => {
    const limits = { read: [{ requests: 2, window: '60s', scope: '{name}' }] }
    const it = new Admissions(upstream(limits))
    expect(charged(it, 'GET', '/x')).toEqual([])
    const ids = new Set(Array.from({ length: 1_000 }, (_, i) => charged(it, 'POST', `/reports/r${i}`)[0]))
    expect(ids.size).toBe(64)
    expect(charged(it, 'POST', '/reports/A%20b')).toEqual(charged(it, 'POST', '/reports/a%20B'))
    // The bytes of "é", as they are and escaped.
    expect(charged(it, 'POST', '/reports/\xc3\xa9')).toEqual(charged(it, 'POST', '/reports/%C3%A9'))
  })

  it('of the upstream counts all accounts together, and so makes it the partition of all', async () => {
    const accounts = { a: { credential: { value: 'x' } }, b: { credential: { value: 'y' } } }
    const limits = {
      all: [{ requests: 3, window: '10s', scope: 'upstream' }],
      read: [{ requests: 2, window: '60s' }],
    }
    const it = new Admissions(upstream(limits, { accounts }))
    const { admissionPolicy } = it.send('GET', '/x', { account: 'a' }).target!
    expect(admissionPolicy.chargeSet.partition).toBe('it')
    expect(admissionPolicy.chargeSet.limits.map(({ id }) => id)).toEqual(['read.60000:account=a', 'all.10000:upstream'])
    expect(await it.countAdmitted(3, 'GET', '/x', { account: 'a' })).toBe(1)
    expect(await it.countAdmitted(3, 'GET', '/x', { account: 'b' })).toBe(1)
  })

  it('of a credential spans the accounts that share it, and only then a partition', async () => {
    const limits = { read: [{ requests: 3, window: '60s', scope: 'credential' }] }
    const alone = new Admissions(upstream(limits))
    expect(alone.send('GET', '/x').target!.admissionPolicy.chargeSet.partition).toBe('it/main')
    const [x, y] = [{ credential: { value: 'x' } }, { credential: { value: 'y' } }]
    const it = new Admissions(upstream(limits, { accounts: { c: x, a: x, b: y } }))
    expect(it.send('GET', '/x', { account: 'c' }).target!.admissionPolicy.chargeSet).toMatchObject({ partition: 'it' })
    expect(charged(it, 'GET', '/x', { account: 'c' })).toEqual(['read.60000:credential=a 1'])
    expect(await it.countAdmitted(3, 'GET', '/x', { account: 'a' })).toBe(2)
    expect(await it.countAdmitted(4, 'GET', '/x', { account: 'b' })).toBe(3)
  })

  it('of a credential leaves out calls that carry none', () => {
    const limits = { all: [{ requests: 3, window: '60s', scope: 'credential' }] }
    const routes = [
      { path: '/hooks/*', class: 'write', credential: 'none' },
      { path: '/*', class: 'write' },
    ]
    const it = new Admissions(upstream(limits, { routes }))
    expect(charged(it, 'POST', '/hooks/x')).toEqual([])
    expect(charged(it, 'POST', '/x')).toEqual(['all.60000:credential=main 1'])
  })

  it('of a credential does not let calls wait that carry none', async () => {
    const limits = {
      all: [{ requests: 1, window: '60s', scope: 'credential' }],
      write: [{ requests: 100, window: '60s' }],
    }
    const routes = [
      { path: '/hooks/*', class: 'write', credential: 'none' },
      { path: '/*', class: 'write' },
    ]
    const it = new Admissions(upstream(limits, { routes }))
    expect(await it.countAdmitted(2, 'POST', '/x')).toBe(1)
    expect(await it.countAdmitted(2, 'POST', '/hooks/x')).toBe(2)
  })

  it('can have several parts', () => {
    const limits = { read: [{ requests: 3, window: '60s', scope: ['upstream', 'route', 'client'] }] }
    const it = new Admissions(upstream(limits), { clients })
    expect(charged(it, 'GET', '/x', key('b'))).toEqual(['read.60000:upstream:client=b:route=GET /* 1'])
  })

  it('does not multiply the concurrency and the queue of a class', async () => {
    const limits = { read: [{ requests: 50, window: '60s', scope: 'client' }] }
    const bounded = { concurrency: { read: 2 }, queue: { maxWait: '24h', maxWaiting: 3 } }
    const it = new Admissions(upstream(limits, bounded), { clients })
    const open = (name: string) => it.send('GET', '/x', { ...key(name), isOpen: true })
    const calls = [open('a'), open('b'), open('a'), open('b'), open('b')]
    await it.clock.advance(0)
    const admitted = () => calls.map(({ permit }) => permit !== undefined)
    expect(admitted()).toEqual([true, true, false, false, false])
    calls[1]!.permit!.commit()
    calls[1]!.permit!.leave()
    await it.clock.advance(0)
    expect(admitted().filter(Boolean)).toHaveLength(3)
    expect([...it.snapshot.upstreams.get('it')!.accounts.get('main')!.admissionPolicies.waiting()][0]!.waiting).toBe(2)
  })
})
