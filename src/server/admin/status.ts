import type { RequestAnswers, RequestQuestion } from '../../requests/question.ts'
import type { BreakerState } from '../../resilience/breaker.ts'

/** What the admin port shows: of one process, or of all workers together. */
export interface Status {
  /** In the OpenMetrics format, in pieces. */
  metrics(): AsyncIterable<string>
  /** Undefined while calls can be served, else why not. */
  notReady(): Promise<string | undefined>
  /** Undefined while all is as it should be, else what calls have to do without. */
  degraded(): Promise<string | undefined>
  /** Undefined while the quota store can't be asked. */
  quota(): Promise<QuotaRow[] | undefined>
  /** The budgets of clients. Undefined while the quota store can't be asked. */
  budgets(): Promise<BudgetRow[] | undefined>
  queue(): Promise<QueueRow[]>
  /** How long the credentials of each account are good, as far as that is known. */
  credentials(): Promise<CredentialRow[]>
  /** What became of calls of this gateway. */
  requests(question: RequestQuestion): Promise<RequestAnswers>
}

/** What operators can have done. */
export interface Controls {
  reload(): Promise<Reloaded>
  /** What became of the latest reload, whoever asked for it. */
  lastReload(): Reloaded | undefined
  breakers(): Promise<BreakerRow[]>
  /** Whether there is such a breaker. */
  setBreaker(order: BreakerOrder): Promise<boolean>
}

/** One limit of one account, as `GET /v1/quota` lists it. */
export interface QuotaRow {
  readonly upstream: string
  readonly account: string
  readonly class: string
  readonly window: string
  readonly limit: number
  /** Less than that while the upstream lets less through, or others use it. */
  readonly effective: number
  readonly used: number
  readonly remaining: number
  readonly resetMs: number
  /** Until nothing is left, if calls go on as in the last minutes; 0 while nothing is; null where that is never, or not known. */
  readonly exhaustionInMs: number | null
  /** The rate of the last minutes divided by the rate that the limit allows for ever; null where that is not known. */
  readonly burnRatio: number | null
  readonly waiting: number
}

/** One window of the budget of a client, as `GET /v1/usage` lists it. */
export interface BudgetRow {
  readonly client: string
  readonly window: string
  readonly limit: number
  readonly used: number
  readonly remaining: number
  readonly resetMs: number
}

/** The calls of one client that wait for one quota at this gateway, as `GET /v1/queue` lists them. */
export interface QueueRow {
  readonly upstream: string
  readonly account: string
  readonly class: string
  readonly client: string
  readonly waiting: number
  /** From now on, when the first of them will have its turn, and when the last, as far as is known. */
  readonly nextInMs: number
  readonly lastInMs: number
}

/** One credential of an account, or the account where nothing is known of its end. */
export interface CredentialRow {
  readonly upstream: string
  readonly account: string
  readonly credential: string | null
  /** Null where that is not known; 0 and less where it is over. */
  readonly expiresInMs: number | null
  /** Credentials of the account's pool that are left out for a while. */
  readonly quarantined: number
}

/** One breaker, as `GET /v1/breakers` lists it. */
export interface BreakerRow {
  readonly upstream: string
  /** Undefined for the one of all calls that are in no group. */
  readonly group: string | undefined
  readonly state: BreakerState
  /** It stays open until somebody closes it. */
  readonly byHand: boolean
  /** Undefined where calls are not refused. */
  readonly retryAfterMs: number | undefined
}

/** To open a breaker until it is closed, or to close it. */
export interface BreakerOrder {
  readonly upstream: string
  readonly group: string | undefined
  readonly state: 'open' | 'closed'
}

/** What became of a reload. Places are paths of keys, such as `upstreams.harness.retry`. */
export type Reloaded =
  /** Calls that come from now on are served as configured now. */
  | { readonly result: 'applied'; readonly changed: readonly string[]; readonly needRestart: readonly string[] }
  | { readonly result: 'unchanged'; readonly needRestart: readonly string[] }
  /** Nothing has changed, because of these. */
  | { readonly result: 'rejected'; readonly problems: readonly string[] }
