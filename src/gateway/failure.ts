import type { BreakerFailure } from '../resilience/breaker.ts'

interface Details {
  readonly retryAfterMs?: number | undefined
  readonly guess?: string | undefined
  readonly openedBy?: BreakerFailure | undefined
  readonly cause?: unknown
}

/** An expected failure. It is returned, never thrown. `isFailure` tells it from what is returned when all is well. */
export class Failure {
  /** Other outcomes have a `kind`, too. Without a tag of its own the compiler would take a copy by spread for a failure. */
  readonly tag = 'failure'
  readonly kind: FailureKind
  /** One sentence for the person who reads the response; never holds a secret or a part of the request's body. */
  readonly message: string
  /** How long the client should wait before it tries again, in milliseconds. */
  readonly retryAfterMs: number | undefined
  /** Hash of a wrong key that the client presented: it may have been a guess. */
  readonly guess: string | undefined
  /** The failure that opened the breaker because of which it is refused. */
  readonly openedBy: BreakerFailure | undefined
  /** The error behind it, for the log. */
  readonly cause: unknown

  constructor(kind: FailureKind, message: string, { retryAfterMs, guess, openedBy, cause }: Details = {}) {
    this.kind = kind
    this.message = message
    this.retryAfterMs = retryAfterMs
    this.guess = guess
    this.openedBy = openedBy
    this.cause = cause
  }
}

export function isFailure(value: object): value is Failure {
  return value instanceof Failure
}

/** The status of each kind of failure. */
export const STATUS_OF = {
  invalid_request: 400,
  unauthenticated: 401,
  proxy_unauthenticated: 407,
  forbidden: 403,
  account_mismatch: 403,
  unknown_upstream: 404,
  body_too_large: 413,
  too_many_attempts: 429,
  quota_exhausted: 429,
  queue_full: 429,
  share_exceeded: 429,
  internal: 500,
  unreachable: 502,
  interrupted: 502,
  breaker_open: 503,
  store_unavailable: 503,
  credential_unavailable: 503,
  draining: 503,
  timeout: 504,
  not_cached: 504,
}

/**
 * Why the gateway answers a call itself instead of the upstream. The `kind` is the metric label, the `X-Sluice-Error` header and
 * the README's heading. Anything else that goes wrong is a bug and throws.
 */
export type FailureKind = keyof typeof STATUS_OF

export const CODE_OF = {
  invalid_request: 'INVALID_REQUEST',
  unauthenticated: 'INVALID_TOKEN',
  proxy_unauthenticated: 'INVALID_PROXY_CREDENTIALS',
  forbidden: 'ACCESS_DENIED',
  account_mismatch: 'ACCOUNT_MISMATCH',
  unknown_upstream: 'UNKNOWN_UPSTREAM',
  body_too_large: 'BODY_TOO_LARGE',
  too_many_attempts: 'TOO_MANY_ATTEMPTS',
  quota_exhausted: 'RATE_LIMIT_EXCEEDED',
  queue_full: 'QUEUE_FULL',
  share_exceeded: 'CLIENT_SHARE_EXCEEDED',
  internal: 'INTERNAL_ERROR',
  unreachable: 'UPSTREAM_UNREACHABLE',
  interrupted: 'UPSTREAM_RESET',
  breaker_open: 'CIRCUIT_OPEN',
  store_unavailable: 'QUOTA_STORE_UNAVAILABLE',
  credential_unavailable: 'CREDENTIAL_UNAVAILABLE',
  draining: 'DRAINING',
  timeout: 'UPSTREAM_TIMEOUT',
  not_cached: 'NOT_CACHED',
} satisfies Record<FailureKind, string>

/** Whose trouble a failure is, where an older answer may stand in for it; nobody's where that would hide a mistake. */
export const TROUBLE_OF = {
  invalid_request: undefined,
  unauthenticated: undefined,
  proxy_unauthenticated: undefined,
  forbidden: undefined,
  account_mismatch: undefined,
  unknown_upstream: undefined,
  too_many_attempts: undefined,
  body_too_large: undefined,
  quota_exhausted: 'quota',
  queue_full: 'quota',
  share_exceeded: 'quota',
  internal: undefined,
  unreachable: 'upstream',
  interrupted: 'upstream',
  breaker_open: 'upstream',
  store_unavailable: undefined,
  credential_unavailable: undefined,
  draining: undefined,
  timeout: 'upstream',
  not_cached: undefined,
} satisfies Record<FailureKind, 'upstream' | 'quota' | undefined>

/** What whoever reads of a refusal can do about it: the words of the table in docs/refusals.md. */
export const ADVICE_OF = {
  invalid_request: 'read the message: what is malformed, missing or too much, or which account to name',
  unauthenticated:
    'send the key of a client; the message says what came instead: none, an empty one, an unknown one, keys of two clients',
  proxy_unauthenticated: 'put the key of a client into the proxy’s URL, as in HTTPS_PROXY=http://CLIENT:KEY@HOST:PORT',
  forbidden: 'the client may not use that account, class or address: see its entry in clients',
  account_mismatch: 'the call names another account than it would use: correct it, or X-Sluice-Account',
  unknown_upstream: 'begin the path with the name of an upstream',
  body_too_large: 'send less, or raise maxBody',
  too_many_attempts: 'the address tried more wrong keys than server.wrongKeys allows: come back after Retry-After',
  quota_exhausted: 'come back after Retry-After, or allow a longer queue.maxWait',
  queue_full: 'more calls wait than may: see who sends them, or raise queue.maxWaiting',
  share_exceeded:
    'the client, its team or its organisation has used its budget, or others wait for the quota too: come back after Retry-After, or raise its budget, weight or share',
  internal: 'a mistake of the gateway: the log has its stack under the correlation id',
  unreachable: 'no connection, nothing was sent: look at DNS, firewall, TLS, url',
  interrupted: 'the upstream broke the connection before it answered; a write may have been done',
  breaker_open: 'the upstream kept failing: look there; a probe is made after Retry-After',
  store_unavailable: "Redis can't be reached from this gateway",
  credential_unavailable:
    'no token can be had for the account (the log says why), it was removed meanwhile, or no keys of a token issuer',
  draining: "the gateway stops before the call's turn would come; go to another",
  timeout: 'no response headers in timeouts.headers, or within timeouts.total',
  not_cached: 'the call says only-if-cached, and nothing that is kept may be given',
} satisfies Record<FailureKind, string>
