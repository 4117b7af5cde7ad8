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
  /** The failure that opened the breaker by which the call is refused. */
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

export function invalid(message: string): Failure {
  return new Failure('invalid_request', message)
}

export function isFailure(value: object): value is Failure {
  return value instanceof Failure
}

/** What holds for all failures of one kind. */
export interface FailureFacts {
  readonly status: number
  readonly code: string
  /** Whose trouble it is, if an older answer may stand in for the failure; missing if that would hide a mistake. */
  readonly trouble?: 'upstream' | 'quota'
}

export const FAILURES = {
  invalid_request: { status: 400, code: 'INVALID_REQUEST' },
  unauthenticated: { status: 401, code: 'INVALID_TOKEN' },
  proxy_unauthenticated: { status: 407, code: 'INVALID_PROXY_CREDENTIALS' },
  forbidden: { status: 403, code: 'ACCESS_DENIED' },
  account_mismatch: { status: 403, code: 'ACCOUNT_MISMATCH' },
  unknown_upstream: { status: 404, code: 'UNKNOWN_UPSTREAM' },
  body_too_large: { status: 413, code: 'BODY_TOO_LARGE' },
  too_many_attempts: { status: 429, code: 'TOO_MANY_ATTEMPTS' },
  quota_exhausted: { status: 429, code: 'RATE_LIMIT_EXCEEDED', trouble: 'quota' },
  queue_full: { status: 429, code: 'QUEUE_FULL', trouble: 'quota' },
  share_exceeded: { status: 429, code: 'CLIENT_SHARE_EXCEEDED', trouble: 'quota' },
  internal: { status: 500, code: 'INTERNAL_ERROR' },
  unreachable: { status: 502, code: 'UPSTREAM_UNREACHABLE', trouble: 'upstream' },
  interrupted: { status: 502, code: 'UPSTREAM_RESET', trouble: 'upstream' },
  breaker_open: { status: 503, code: 'CIRCUIT_OPEN', trouble: 'upstream' },
  store_unavailable: { status: 503, code: 'QUOTA_STORE_UNAVAILABLE' },
  credential_unavailable: { status: 503, code: 'CREDENTIAL_UNAVAILABLE' },
  draining: { status: 503, code: 'DRAINING' },
  timeout: { status: 504, code: 'UPSTREAM_TIMEOUT', trouble: 'upstream' },
  not_cached: { status: 504, code: 'NOT_CACHED' },
} satisfies Record<string, FailureFacts>

/**
 * Why the gateway answers a call itself instead of the upstream. The `kind` is the metric label, the `X-Sluice-Error` header and
 * the README's heading. Anything else that goes wrong is a bug and throws.
 */
export type FailureKind = keyof typeof FAILURES

/** What the reader of a refusal can do about it: the words of the table in docs/refusals.md. */
export const ADVICE_OF = {
  invalid_request: 'the message of the refusal says what is malformed, missing or too much, or which account to name',
  unauthenticated:
    'send the key of a client; the message of the refusal says what came instead: none, an empty one, an unknown one, keys of two clients',
  proxy_unauthenticated: 'put the key of a client into the proxy’s URL, as in HTTPS_PROXY=http://CLIENT:KEY@HOST:PORT',
  forbidden:
    'the client may not use that account, class or address: see its entry in clients; or a web page may have sent the call',
  account_mismatch: 'the call names another account than it would use: correct it, or X-Sluice-Account',
  unknown_upstream:
    'begin the path with the name of an upstream, send the call to the gateway itself, or ask for a path that an upstream has; the message of the refusal says which',
  body_too_large: 'send less, or raise maxBody',
  too_many_attempts: 'the address tried more wrong keys than server.wrongKeys allows: come back after Retry-After',
  quota_exhausted: 'come back after Retry-After, or allow a longer queue.maxWait',
  queue_full: 'more calls wait than may: see who sends them, or raise queue.maxWaiting',
  share_exceeded:
    'the client, its team or its organisation has used its budget, or others wait for the quota too: come back after Retry-After, or raise its budget, weight or share',
  internal: 'a mistake of the gateway: the log has its stack under the correlation id',
  unreachable: 'no connection, nothing was sent: look at DNS, firewall, TLS, url, or raise connections if it says so',
  interrupted:
    'the upstream broke the connection before it answered, or its answer is no well-formed HTTP, as the message of the refusal says; a write may have been done',
  breaker_open: 'the upstream kept failing: look there; a probe is made after Retry-After',
  store_unavailable: 'Redis is away, the disk is full, or another ledger format runs: /readyz says which',
  credential_unavailable:
    'no token can be had for the account (the log says why), it was removed meanwhile, or no keys of a token issuer',
  draining: "the gateway stops before the call's turn would come; go to another",
  timeout: 'no response headers in timeouts.headers, or within timeouts.total',
  not_cached: 'the call says only-if-cached, and nothing that is kept may be given',
} satisfies Record<FailureKind, string>
