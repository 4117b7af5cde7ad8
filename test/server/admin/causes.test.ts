import { X509Certificate } from 'node:crypto'
import { describe, expect, it, onTestFinished } from 'vitest'
import { findings, unknownUsage, usageCauses } from '../../../src/server/admin/causes.ts'
import type { BudgetRow, CredentialRow, Degradation, QueueRow, QuotaRow } from '../../../src/server/admin/status.ts'
import { makeCertificates } from '../../support/certificates.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

const ACCOUNT = { upstream: 'harness', account: 'prod', class: 'write' }

function limit(window: string, limit: number, used: number, more: Partial<QuotaRow> = {}): QuotaRow {
  const unknown = { exhaustionInMs: null, burnRatio: null }
  return {
    ...ACCOUNT,
    window,
    limit,
    effective: limit,
    used,
    remaining: limit - used,
    resetMs: 500,
    waiting: 0,
    ...unknown,
    ...more,
  }
}

function budgetOf({ limit, used, isLocal }: Pick<BudgetRow, 'limit' | 'used' | 'isLocal'>): BudgetRow {
  const unknown = { exhaustionInMs: null, burnRatio: null }
  const whose = { level: 'client', name: 'bot', client: 'bot', window: '1h' } as const
  return { ...whose, limit, used, remaining: limit - used, resetMs: 1, ...unknown, isLocal }
}

interface State {
  readonly notReady?: string
  readonly degraded?: readonly Degradation[]
  /** `null` stands for a store that does not answer. */
  readonly limits?: readonly QuotaRow[] | null
  readonly budgets?: readonly BudgetRow[]
  readonly queue?: readonly QueueRow[]
  readonly credentials?: readonly CredentialRow[]
  readonly config?: object
  readonly managed?: readonly object[]
  readonly clock?: SimulatedClock
}

async function causesOf(state: State) {
  const { degraded = [], limits = [], budgets = [], queue = [], credentials = [] } = state
  const { config = { server: {} }, managed = [], clock = new SimulatedClock() } = state
  const parts = {
    status: {
      notReady: async () => state.notReady,
      degraded: async () => degraded,
      quota: async () => limits ?? undefined,
      budgets: async () => budgets,
      queue: async () => queue,
      credentials: async () => credentials,
    },
    controls: { breakers: async () => [], lastReload: () => undefined },
    management: { clock, config: () => config, clients: { all: managed } },
  } as unknown as Parameters<typeof findings>[0]
  const { causes } = await findings(parts, async () => ({ found: [], away: [] }))
  return causes
}

describe('what calls have to do without', () => {
  it('is one thing for each kind, whatever its words, and leads to its own alert', async () => {
    const degraded: Degradation[] = [
      { kind: 'store', why: 'the quota store answers "LOADING; wait"; quotas are kept by leases' },
      { kind: 'home', why: 'home can not be reached, so region eu has its reserve only' },
      { kind: 'lost data', why: 'Redis has lost 2 of its clients; the older entries of the audit trail' },
      { kind: 'workers', why: '1 of 3 workers are missing' },
    ]
    const causes = await causesOf({ degraded })
    expect(causes.map(({ about, alert, what }) => [about, alert, what])).toEqual([
      ['degraded', 'SluiceStoreDegraded', `Degraded: ${degraded[0]!.why}.`],
      ['home', 'SluiceStoreDegraded', `Degraded: ${degraded[1]!.why}.`],
      ['lost data', 'SluiceStoreLostData', `Degraded: ${degraded[2]!.why}.`],
      ['workers', 'SluiceWorkersMissing', `Degraded: ${degraded[3]!.why}.`],
    ])
  })
})

describe('limits that nobody tells', () => {
  it.each([
    [undefined, 'The quota store does not answer.'],
    ['no worker answers', 'This gateway is not ready: no worker answers.'],
  ])('are one thing that is wrong, if the gateway is not ready because %s', async (notReady, what) => {
    const causes = await causesOf({ limits: null, ...(notReady !== undefined && { notReady }) })
    expect(causes.map((cause) => cause.what)).toEqual([what])
  })
})

describe('credentials that a pool leaves out', () => {
  it('are told once for the pool, though each of it has a row', async () => {
    const of = { upstream: 'harness', account: 'prod', expiresInMs: 1e12, quarantined: 1 }
    const causes = await causesOf({
      credentials: [
        { ...of, credential: 'a' },
        { ...of, credential: 'b' },
      ],
    })
    expect(causes.map(({ about }) => about)).toEqual(['harness/prod left out'])
  })
})

describe('what of the gateway itself expires', () => {
  const DAY_MS = 86_400_000
  const told = async (state: State) =>
    (await causesOf(state)).map(({ event, severity, alert, what }) => [event, severity, alert, what])

  it('is told of its certificate, as the alerts do', async () => {
    const certificates = makeCertificates(['gateway'])
    onTestFinished(() => certificates.remove())
    const cert = certificates.read('gateway.pem')
    const ends = new X509Certificate(cert).validToDate.getTime()
    const at = (inMs: number) => {
      const clock = new SimulatedClock()
      return { config: { server: { tls: { cert } } }, clock: Object.assign(clock, { wall: () => ends - inMs }) }
    }
    expect(await told(at(8 * DAY_MS))).toEqual([])
    const sentence = 'The certificate of server.tls'
    expect([await told(at(2 * DAY_MS)), await told(at(3_600_000)), await told(at(-DAY_MS))].flat()).toEqual([
      ['credential', 'warning', 'SluiceCertificateExpires', `${sentence} expires in 2 days.`],
      ['credential', 'failing', 'SluiceCertificateExpired', `${sentence} expires in 60 min.`],
      ['credential', 'failing', 'SluiceCertificateExpired', `${sentence} has expired: no client connects.`],
    ])
  })

  it('is told of keys of clients before, and not of those that have ended', async () => {
    const clock = new SimulatedClock()
    const key = (inDays: number) => ({ hash: 'sha256:00', expires: clock.wall() + inDays * DAY_MS })
    const config = {
      server: {},
      clients: { bot: { keys: ['sha256:11', key(2), key(3), key(-1), key(8)] }, old: { keys: [key(-1)] } },
    }
    const managed = [
      { id: 'cl_1', name: 'ci', keys: [key(5)] },
      { id: 'cl_2', name: 'gone', keys: [key(5)], archivedAt: 1 },
    ]
    expect(await told({ clock, config, managed })).toEqual([
      [
        'credential',
        'warning',
        'SluiceClientKeyExpires',
        '2 keys of the client bot expire within 7 days, the first in 2 days.',
      ],
      ['credential', 'warning', 'SluiceClientKeyExpires', '1 key of the client ci expires in 5 days.'],
    ])
    expect((await causesOf({ clock, config, managed })).map(({ todo }) => todo)).toEqual([
      expect.stringMatching(/keys create --client bot, and add the hash that it prints to clients\.bot\.keys/),
      expect.stringMatching(/POST \/v1\/clients\/cl_1\/keys/),
    ])
  })
})

describe('calls that wait', () => {
  const queue = [{ ...ACCOUNT, client: 'bot', waiting: 3, nextInMs: 1, lastInMs: 2 }]

  it('are told of the limit that is used up, and of no other of their class', async () => {
    const limits = [
      limit('1s', 20, 20, { waiting: 3 }),
      limit('1m', 1_000, 25, { waiting: 3 }),
      limit('1h', 1_000, 950, { waiting: 3 }),
    ]
    expect((await causesOf({ limits, queue })).map(({ what }) => what)).toEqual([
      'harness/prod write per 1s is used up, and 3 calls wait, 3 of the client bot.',
      'harness/prod write per 1h is nearly used up: 950 of 1000.',
    ])
  })

  it('are told once of their class, where no limit is used up', async () => {
    const limits = [
      limit('1s', 20, 5, { waiting: 3 }),
      limit('1m', 1_000, 25, { waiting: 3 }),
      limit('1h shadow', 1, 1, { waiting: 3 }),
    ]
    const causes = await causesOf({ limits, queue })
    expect(causes.map(({ about, what }) => [about, what])).toEqual([
      ['harness/prod write', '3 calls wait for harness/prod write, of which no limit is used up, 3 of the client bot.'],
    ])
  })
})

describe('how much of a limit is used', () => {
  it.each([
    [57, 100, 57],
    [0.57, 1, 57],
    [29, 100, 29],
    [999, 1_000, 99],
    [0.005, 0.01, 50],
  ])('of %d of %d is told as %i %%', (used, most, percent) => {
    const [cause] = [...usageCauses([limit('1m', most, used)], [], [0.1])]
    expect(cause!.what).toBe(`${percent} % of harness/prod write per 1m is used: ${used} of ${most}.`)
  })
})

describe('a budget', () => {
  it.each([
    [89, undefined],
    [90, 'The budget of bot per 1h is nearly used up: 90 of 100.'],
    [100, 'The budget of bot per 1h is used up: 100 of 100.'],
  ])('of which %d of 100 are used is told on the page as it is', async (used, what) => {
    const causes = await causesOf({ budgets: [budgetOf({ limit: 100, used })] })
    expect(causes.map((cause) => cause.what)).toEqual(what === undefined ? [] : [what])
    // Webhooks have thresholds of their own.
    expect(causes.filter(({ event }) => event !== undefined)).toEqual([])
  })
})

describe('limits and budgets, while Redis is away', () => {
  it('are not told: what this gateway may not spend without it was used by nobody', async () => {
    const isLocal = true as const
    const limits = [
      limit('1m', 1_000, 1_000, { isLocal, waiting: 3 }),
      limit('1h', 1_000, 0, { isLocal, effective: 5 }),
    ]
    expect(await causesOf({ limits })).toEqual([])
    const budget = budgetOf({ limit: 10, used: 10, isLocal })
    expect(await causesOf({ budgets: [budget] })).toEqual([])
    expect([...usageCauses(limits, [budget], [0.8])]).toEqual([])
    const { isLocal: _, ...known } = budget
    expect([...usageCauses([limit('1m', 1_000, 900)], [known], [0.8])]).toHaveLength(2)
    // What would be told of them has the same names, so that it is not taken for over.
    const unlocal = limits.map((row) => ({ ...row, isLocal: undefined, exhaustionInMs: 300_000 }))
    const waiting = limit('1m', 1_000, 0, { waiting: 1 })
    const told = [
      ...(await causesOf({ limits: unlocal })),
      ...(await causesOf({ limits: [waiting] })),
      ...usageCauses(unlocal, [known], [0]),
    ]
    expect(new Set(told.map(({ event }) => event))).toEqual(new Set(['used_up', 'reduced', 'exhaustion', 'usage']))
    expect(unknownUsage(limits, [budget])).toEqual(new Set(told.map(({ about }) => about)))
    expect(unknownUsage(unlocal, [known])).toEqual(new Set())
  })
})
