import { endOfCertificate } from '../net/certificate-end.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { BurnMeter, UNKNOWN_BURN } from '../gateway/burn.ts'
import type { Snapshot } from '../gateway/snapshot.ts'
import { amountOf } from '../schema/price-schema.ts'
import type { Clock, EpochMs } from '../time/clock.ts'
import type { Losses } from '../records/losses.ts'
import {
  type Burn,
  type CredentialState,
  fullerOf,
  type ObservedUsage,
  type QueueOccupancy,
} from '../observe/gauges.ts'
import type { Metrics } from '../observe/metrics.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import type { RequestAnswers, RequestQuestion } from '../requests/question.ts'
import type { Limit } from '../ledger/limit.ts'
import { allowedOf, type Ledger, type LimitUsage, StoreUnavailableError } from '../ledger/ledger.ts'
import { duesByClass } from '../usage/due.ts'
import type { Usage } from '../usage/usage.ts'
import { mergeQueues } from './merge-rows.ts'
import type {
  BreakerRow,
  BudgetRow,
  CredentialRow,
  Degradation,
  QueueRow,
  QuotaRow,
  Status,
} from '../server/admin/status.ts'

interface Parts {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly ledger: Ledger
  readonly usage: Usage
  /** The snapshot in force. */
  readonly live: { readonly current: Snapshot }
  readonly losses: Losses
  isStopping(): boolean
  /** How many tunnels of the forward proxy are open. Undefined where there is no forward proxy. */
  readonly tunnels?: (() => number) | undefined
  /** How many connections of clients are open. */
  clientConnections(): Promise<number>
  /** What this process knows of its latest calls. */
  requests(question: RequestQuestion): RequestAnswers['found'] | Promise<RequestAnswers['found']>
}

const DEGRADED = {
  lease: 'the quota store can not be reached: quotas are kept by leases',
  closed: 'the quota store can not be reached: calls that need a quota are refused',
  open: 'the quota store can not be reached: calls pass without a quota',
} satisfies Record<StoreConfig['onOutage'], string>

/** What a gateway process tells operators and Prometheus about itself. */
export function gatewayStatus(parts: Parts): Status {
  const { clock, metrics, ledger, usage, live, losses } = parts
  metrics.observe({
    queues: () => queuesOf(live.current),
    breakers: () => breakerRows(live.current),
    connections: () =>
      [...live.current.upstreams.values()].map(({ name, transport, webSockets }) => ({
        upstream: name,
        connections: transport.connections,
        waiting: transport.waiting,
        webSockets: webSockets.open,
      })),
    tunnels: parts.tunnels,
    clientConnections: () => parts.clientConnections(),
    // While the store can't be asked, usage and budgets are left out, and everything else is still shown.
    usage: async () => (await unlessAway(() => usageOf(live.current, ledger))) ?? [],
    dues: async () => duesByClass(await usage.recent()),
    budgets: async () => (await unlessAway(() => budgetRows(live.current, ledger, clock))) ?? [],
    credentials: () => credentialsOf(live.current, clock.wall()),
    clientKeys: () => clientKeysOf(live.current, clock.wall()),
    get certificateInMs() {
      const endsAt = endOfCertificate(live.current.config.server.tls?.cert)
      return endsAt === undefined ? undefined : endsAt - clock.wall()
    },
    get isStoreDegraded() {
      return ledger.isDegraded
    },
  })
  return {
    metrics: () => metrics.exposition(),
    quota: () => quotaRows(live.current, ledger),
    budgets: () => unlessAway(() => budgetRows(live.current, ledger, clock)),
    queue: () => Promise.resolve(mergeQueues(queueRows(live.current))),
    credentials: () => Promise.resolve(credentialRows(live.current, clock.wall())),
    requests: async (question) => ({ found: await parts.requests(question), away: [], since: usage.since }),
    notReady() {
      if (parts.isStopping()) return Promise.resolve('draining')
      return Promise.resolve(ledger.isReady ? undefined : (ledger.problem ?? 'the quota store can not be reached'))
    },
    degraded() {
      const outage = ledger.isDegraded ? (ledger.problem ?? DEGRADED[live.current.config.store.onOutage]) : undefined
      const known = { store: outage, home: ledger.regionProblem, 'lost data': losses.text }
      return Promise.resolve(
        Object.entries(known).flatMap(([kind, why]) => (why === undefined ? [] : [{ kind, why } as Degradation])),
      )
    },
  }
}

/** The budgets of teams, organisations and clients. Rejects while the store can't be asked. */
async function budgetRows(snapshot: Snapshot, ledger: Ledger, clock: Clock): Promise<BudgetRow[]> {
  const asked = new Asked<BudgetRow[]>()
  const slice = new TimeSlice()
  for (const { kind: level, name, chargeSet } of snapshot.callers.levels()) {
    const rowOf = (usage: LimitUsage): BudgetRow => {
      const { limit, used, resetMs, isLocal } = usage
      return {
        level,
        name,
        client: level === 'client' ? name : null,
        window: limit.label,
        unit: limit.unit,
        limit: amountOf(limit, limit.requests),
        used: amountOf(limit, used),
        remaining: amountOf(limit, Math.max(0, limit.requests - used)),
        resetMs: Math.round(resetMs),
        isLocal,
        ...roundedBurn(isLocal ? UNKNOWN_BURN : meterOf(limit, clock).burn(clock.now(), usage)),
      }
    }
    await asked.add(ledger.usage(chargeSet).then((usages) => usages.map(rowOf)))
    await slice.endIfOver()
  }
  return (await asked.all()).flat()
}

/** How fast each budget is spent. A reload makes new limits, so the rates are learned anew. */
const METERS = new WeakMap<Limit, BurnMeter>()

function meterOf(limit: Limit, clock: Clock): BurnMeter {
  return METERS.getOrInsertComputed(limit, () => new BurnMeter(limit, () => clock.wall() - clock.now()))
}

function roundedBurn({ exhaustionInMs, burnRatio }: Burn): Burn {
  return {
    exhaustionInMs: exhaustionInMs === null ? null : Math.round(exhaustionInMs),
    burnRatio: burnRatio === null ? null : Math.round(burnRatio * 1_000) / 1_000,
  }
}

function queueRows({ upstreams }: Snapshot): QueueRow[] {
  const rows: QueueRow[] = []
  for (const { accounts } of upstreams.values()) {
    for (const { admissionPolicies } of accounts.values()) {
      for (const { labels, view } of admissionPolicies.queued()) {
        const { client, waiting, nextInMs, lastInMs } = view
        rows.push({ ...labels, client, waiting, nextInMs: Math.round(nextInMs), lastInMs: Math.round(lastInMs) })
      }
    }
  }
  return rows
}

export function breakerRows({ upstreams }: Snapshot): BreakerRow[] {
  return [...upstreams.values()].flatMap(({ name, breakers }) =>
    [...breakers.all()].map(({ group, breaker }) => ({
      upstream: name,
      group,
      // The state must be read first: reading it can change an open breaker, and with that the other fields.
      state: breaker.state,
      byHand: breaker.isHeld,
      retryAfterMs: breaker.isRefusing ? Math.round(breaker.retryAfterMs) : undefined,
    })),
  )
}

function* credentialsOf({ upstreams }: Snapshot, now: EpochMs): Iterable<CredentialState> {
  for (const { name: upstream, accounts, config } of upstreams.values()) {
    const endsAt = endOfCertificate(config.tls?.cert)
    if (endsAt !== undefined) {
      const inMs = endsAt - now
      yield { upstream, account: '*', quarantined: undefined, expiries: [{ credential: `${upstream} tls.cert`, inMs }] }
    }
    for (const { name: account, credential } of accounts.values()) {
      if (credential === undefined) continue
      const { quarantined, expiries } = credential
      const inTime = expiries.map((expiry) => ({ credential: expiry.credential, inMs: expiry.at - now }))
      yield { upstream, account, quarantined, expiries: inTime }
    }
  }
}

function credentialRows(snapshot: Snapshot, now: EpochMs): CredentialRow[] {
  const rows: CredentialRow[] = []
  for (const { upstream, account, quarantined = 0, expiries } of credentialsOf(snapshot, now)) {
    if (expiries.length === 0) rows.push({ upstream, account, credential: null, expiresInMs: null, quarantined })
    for (const { credential, inMs } of expiries)
      rows.push({ upstream, account, credential, expiresInMs: Math.round(inMs), quarantined })
  }
  return rows
}

function* clientKeysOf({ callers }: Snapshot, now: EpochMs): Iterable<{ client: string; key: string; inMs: number }> {
  for (const { client, label, hash, expires } of callers.keys()) {
    // A key without a label is named by the beginning of its hash, as in logs and lists.
    if (expires !== undefined) yield { client, key: label ?? hash.slice(0, 'sha256:'.length + 8), inMs: expires - now }
  }
}

function* queuesOf(snapshot: Snapshot): Iterable<QueueOccupancy> {
  for (const upstream of snapshot.upstreams.values()) {
    for (const { admissionPolicies } of upstream.accounts.values()) yield* admissionPolicies.waiting()
  }
}

async function quotaRows(snapshot: Snapshot, ledger: Ledger): Promise<QuotaRow[] | undefined> {
  const waiting = new Map<string, number>()
  for (const { labels, waiting: count } of queuesOf(snapshot)) waiting.set(Object.values(labels).join('/'), count)
  return (await unlessAway(() => usageOf(snapshot, ledger)))?.map(({ labels, ...row }) =>
    Object.assign({}, labels, row, roundedBurn(row), {
      remaining: remainderOf(row),
      resetMs: Math.round(row.resetMs),
      waiting: waiting.get(Object.values(labels).join('/')) ?? 0,
    }),
  )
}

/** Amounts of money are rounded: as floating-point numbers, 0.3 - 0.1 is a little less than 0.2. */
function remainderOf({ unit, effective, used }: Pick<TimedUsage, 'unit' | 'effective' | 'used'>): number {
  const left = Math.max(0, effective - used)
  return unit === undefined ? left : Number(left.toFixed(9))
}

type TimedUsage = ObservedUsage & Pick<LimitUsage, 'resetMs'> & { readonly unit: string | undefined }

/**
 * The usage of every limit. Limits that differ only in their route, client or segment have one row together, that of the
 * fullest. A limit that several accounts share has one row. Rejects while the store can't be asked.
 */
async function usageOf(snapshot: Snapshot, ledger: Ledger): Promise<TimedUsage[]> {
  const asked = new Asked<TimedUsage[]>()
  const slice = new TimeSlice()
  for (const { name: upstream, accounts } of snapshot.upstreams.values()) {
    for (const { admissionPolicies } of accounts.values()) {
      const { chargeSet, shown } = admissionPolicies
      if (shown.length === 0) continue
      const named = (usage: LimitUsage, i: number): TimedUsage => {
        const { account, watch } = shown[i]!
        const { limit, used, resetMs, share, stranded, isLocal } = usage
        if (limit.isEnforced && !isLocal) watch.note(usage)
        const labels = { upstream, account, class: limit.class }
        const burn = isLocal ? UNKNOWN_BURN : watch.burn(usage)
        return {
          labels,
          window: limit.label,
          unit: limit.unit,
          limit: amountOf(limit, limit.requests),
          effective: amountOf(limit, allowedOf(usage)),
          share: share === undefined ? undefined : amountOf(limit, share),
          stranded: stranded === undefined ? undefined : amountOf(limit, stranded),
          used: amountOf(limit, used),
          resetMs,
          isLocal,
          ...burn,
        }
      }
      await asked.add(ledger.usage(chargeSet).then((usages) => usages.map(named)))
      await slice.endIfOver()
    }
  }
  return fullestOf(await asked.all())
}

/** How many questions to the store may be unanswered at a time. Each takes memory, and there may be very many accounts. */
const MOST_UNANSWERED = 500

/** Questions to the store, in the order in which they were asked. */
class Asked<T> {
  readonly #answers: Promise<T>[] = []

  /** Waits while too many questions are unanswered. Rejects if the one that it waits for fails. */
  async add(answer: Promise<T>): Promise<void> {
    // The question may fail before `all` waits for it. Without this handler, that would end the process.
    answer.catch(() => undefined)
    this.#answers.push(answer)
    await this.#answers.at(-MOST_UNANSWERED)
  }

  all(): Promise<T[]> {
    return Promise.all(this.#answers)
  }
}

/** The answer to `ask`, or undefined while the store can't be asked. */
async function unlessAway<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask()
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    return undefined
  }
}

async function fullestOf(all: readonly (readonly TimedUsage[])[]): Promise<TimedUsage[]> {
  const fullest = new Map<string, TimedUsage>()
  const slice = new TimeSlice()
  for (const usages of all) {
    for (const usage of usages) {
      const key = [...Object.values(usage.labels), usage.window].join('\n')
      const known = fullest.get(key)
      fullest.set(key, known === undefined ? usage : fullerOf(known, usage))
    }
    await slice.endIfOver()
  }
  return [...fullest.values()]
}
