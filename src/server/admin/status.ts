import type { BudgetUse, ObservedUsage } from '../../observe/gauges.ts'
import type { ClassLabels } from '../../observe/series.ts'
import type { RequestAnswers, RequestQuestion } from '../../requests/question.ts'
import type { BreakerState } from '../../resilience/breaker.ts'

/** What the admin port shows, of one process or of all workers together. */
export interface Status {
  /** The metrics in the OpenMetrics format, in pieces. */
  metrics(): AsyncIterable<string>
  /** Why calls can't be served; undefined while they can. */
  notReady(): Promise<string | undefined>
  /** What calls have to do without, one of each kind; none while nothing is amiss. */
  degraded(): Promise<readonly Degradation[]>
  /** Undefined while the quota store can't be asked. */
  quota(): Promise<QuotaRow[] | undefined>
  /** The budgets of clients, teams and organisations. Undefined while the quota store can't be asked. */
  budgets(): Promise<BudgetRow[] | undefined>
  queue(): Promise<QueueRow[]>
  /** When the credentials of each account expire, as far as that is known. */
  credentials(): Promise<CredentialRow[]>
  /** Finds calls of this gateway. */
  requests(question: RequestQuestion): Promise<RequestAnswers>
}

/** What calls have to do without. */
export interface Degradation {
  readonly kind: 'store' | 'home' | 'lost data' | 'workers'
  readonly why: string
}

/** The result of a reload. Places are paths of keys, such as `upstreams.harness.retry`. */
export type Reloaded =
  /** The new configuration is in force for calls that come from now on. */
  | {
      readonly result: 'applied'
      readonly changed: readonly string[]
      readonly needRestart: readonly string[]
      /** What is allowed, but probably not meant; missing if there is nothing. */
      readonly warnings?: readonly string[]
    }
  | { readonly result: 'unchanged'; readonly needRestart: readonly string[] }
  /** The problems because of which nothing has changed. */
  | { readonly result: 'rejected'; readonly problems: readonly string[] }

/** What operators can change while the gateway runs. */
export interface Controls {
  reload(): Promise<Reloaded>
  /** The result of the latest reload, whoever asked for it. */
  lastReload(): Reloaded | undefined
  breakers(): Promise<BreakerRow[]>
  /** Returns whether there is such a breaker. */
  setBreaker(order: BreakerOrder): Promise<boolean>
}

/** One limit of one account, as `GET /v1/quota` lists it. */
export interface QuotaRow extends ClassLabels, Omit<ObservedUsage, 'labels'> {
  /** The currency of its numbers, if the limit counts money. */
  readonly unit?: string | undefined
  readonly remaining: number
  readonly resetMs: number
  readonly waiting: number
}

/** How full a limit is, by what can be used now: 1 if nothing is left. What nobody knows comes last. */
export function fullnessOf({ used, effective, isLocal }: Pick<QuotaRow, 'used' | 'effective' | 'isLocal'>): number {
  if (isLocal === true) return -1
  return effective === 0 ? 1 : used / effective
}

/** Said of rows with `isLocal`. */
export const NOT_KNOWN = 'What is used is not known while the quota store can not be asked.'

/** One window of the budget of a client, a team or an organisation, as `GET /v1/usage` lists it. */
export interface BudgetRow extends BudgetUse {
  /** The name again, where it is a client's. */
  readonly client: string | null
  /** The currency of its numbers, if they are money. */
  readonly unit?: string | undefined
  readonly remaining: number
  readonly resetMs: number
}

/** The calls of one client that wait for one quota at this gateway, as `GET /v1/queue` lists them. */
export interface QueueRow extends ClassLabels {
  readonly client: string
  readonly waiting: number
  /** Time from now until the first of them, and the last, will probably have its turn. */
  readonly nextInMs: number
  readonly lastInMs: number
}

/** One credential of an account, or the account itself if it is not known when its credentials expire. */
export interface CredentialRow {
  readonly upstream: string
  readonly account: string
  readonly credential: string | null
  /** Time until it expires; null if not known, 0 or less if it has expired. */
  readonly expiresInMs: number | null
  /** Credentials of the account's pool that are left out for a while. */
  readonly quarantined: number
}

/** One breaker, as `GET /v1/breakers` lists it. */
export interface BreakerRow {
  readonly upstream: string
  /** Undefined for the breaker of all calls that are in no group. */
  readonly group: string | undefined
  readonly state: BreakerState
  /** Whether it was opened by hand. It then stays open until somebody closes it. */
  readonly byHand: boolean
  /** Time until the next probe; undefined while calls are not refused. */
  readonly retryAfterMs: number | undefined
}

/** Opens a breaker until somebody closes it, or closes it. */
export interface BreakerOrder {
  readonly upstream: string
  readonly group: string | undefined
  readonly state: 'open' | 'closed'
}
