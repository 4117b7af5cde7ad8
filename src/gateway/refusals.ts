import type { StoreUnavailableError } from '../ledger/ledger.ts'
import type { Client } from '../clients/client.ts'
import type { Admission, Closing, Shortage } from '../queue/admission.ts'
import type { Breaker } from '../resilience/breaker.ts'
import type { BodyErrorKind } from '../upstream/body.ts'
import { isRefusedStream } from '../upstream/cancel-streams.ts'
import { ConnectTimeout } from '../upstream/connect.ts'
import { codeOf } from '../upstream/error-code.ts'
import { isMalformed } from '../upstream/malformed.ts'
import { ConnectionsTaken, isHeadTooLarge, MOST_HEAD_BYTES } from '../upstream/transport.ts'
import { AddressError } from '../net/guarded-lookup.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import type { Unanswered } from './decide.ts'
import { tooExpensive } from './charges.ts'
import { Failure } from './failure.ts'
import type { Upstream } from './snapshot.ts'

// The failures that a client is told of, in the order in which they may happen to a call.

export function tooManyWebSockets({ name, webSockets: { most } }: Upstream): Failure {
  return new Failure('quota_exhausted', `${most} WebSockets to ${name} are open, and no more may be`)
}

export function breakerOpen({ name }: Upstream, breaker: Breaker): Failure {
  const message = breaker.isHeld
    ? `calls to ${name} are refused until an operator allows them again`
    : `${name} kept failing, so calls to it are refused for a while`
  const { retryAfterMs, openedBy } = breaker
  return new Failure('breaker_open', message, { retryAfterMs, openedBy })
}

/** The client's body was too large, or did not arrive. */
export function bodyFailed(kind: Exclude<BodyErrorKind, 'gone'>, { config }: Upstream): Failure {
  switch (kind) {
    case 'too_large':
      return new Failure('body_too_large', `the request body is larger than the ${config.maxBody} bytes allowed`)
    case 'stalled':
      return new Failure('invalid_request', `no more of the request body came for ${config.timeouts.idle} ms`)
    case 'slow': {
      const message = `the request body came more slowly than ${config.minBodyRate} bytes a second`
      return new Failure('invalid_request', message)
    }
  }
}

export const OUT_OF_TIME: Failure = new Failure(
  'timeout',
  'the time that its X-Sluice-Timeout gives the call was over before it could be sent',
)

export const DRAINING: Failure = new Failure('draining', 'the gateway stops, and the call’s turn would come too late')

/** The admission queue did not let the call through. */
export function notAdmitted(
  admission: Exclude<Admission, { kind: 'admitted' | 'gone' }>,
  policy: AdmissionPolicy,
  client: Client,
): Failure {
  switch (admission.kind) {
    case 'closed':
      return queueClosed(admission.because, policy)
    case 'too_expensive': {
      const { limit, units } = admission
      return tooExpensive({ ...limit, allowed: limit.requests }, units, limit.unit)
    }
    case 'quota_exhausted':
      return new Failure('quota_exhausted', tooLate(policy, admission.because), { retryAfterMs: admission.waitMs })
    case 'share_exceeded': {
      const quota = quotaOf(policy)
      const message = `other clients wait for ${quota} too, and the turn of ${client.name} would come later than the call may wait`
      return new Failure('share_exceeded', message, { retryAfterMs: admission.waitMs })
    }
    case 'queue_full': {
      const { most, of } = admission.full
      return new Failure('queue_full', `${most} ${of} are waiting already`, { retryAfterMs: admission.waitMs })
    }
  }
}

function queueClosed(because: Closing, policy: AdmissionPolicy): Failure {
  switch (because) {
    case 'removed': {
      const message = `${nameOf(policy)} was taken out of the configuration while the call waited`
      return new Failure('credential_unavailable', message)
    }
    case 'draining':
      return DRAINING
  }
}

function tooLate(policy: AdmissionPolicy, because: Shortage): string {
  const late = 'and the call’s turn would come later than it may wait'
  switch (because) {
    case 'quota':
      return `${quotaOf(policy)} is used up, ${late}`
    case 'concurrency':
      return `as many ${policy.labels.class} calls of ${nameOf(policy)} are in flight as may be at once, ${late}`
  }
}

function quotaOf(policy: AdmissionPolicy): string {
  return `the ${policy.labels.class} quota of ${nameOf(policy)}`
}

/** The account; the partition of its charge set may be the whole upstream. */
function nameOf({ labels: { upstream, account } }: AdmissionPolicy): string {
  return `${upstream}/${account}`
}

export function storeUnavailable(cause: StoreUnavailableError): Failure {
  const message = `${cause.held ?? 'the quota store can’t be reached'}, so the call can’t be kept inside the quota`
  return new Failure('store_unavailable', message, { retryAfterMs: 1_000, cause })
}

/** The transport does not take the request. */
export function unsendable(cause: unknown): Failure {
  if (cause instanceof AddressError) return new Failure('forbidden', cause.message, { cause })
  return new Failure('invalid_request', 'the request can’t be sent on as it is', { cause })
}

/** The last attempt ended without a response. */
export function unanswered(ending: Unanswered, { name, config }: Upstream, cause: unknown): Failure {
  const { timeouts, connections } = config
  const why = codeOf(cause)
  if (cause instanceof ConnectionsTaken) {
    const message = `other calls held all connections to ${name} (connections: ${connections}), and none became free in time; nothing was sent`
    return new Failure(ending.kind, message, { cause })
  }
  switch (ending.kind) {
    case 'timeout': {
      const message =
        ending.phase === 'headers'
          ? `${name} sent no response headers for ${timeouts.headers} ms`
          : `${name} did not answer in all the time that the call may take`
      return new Failure('timeout', message, { cause })
    }
    case 'unreachable':
      if (cause instanceof ConnectTimeout) {
        const { phase } = cause
        const what = phase === 'tls' ? 'a TLS handshake' : 'a connection'
        const message = `${what} with ${name} took longer than ${timeouts[phase]} ms; nothing was sent`
        return new Failure('unreachable', message, { cause })
      }
      if (isRefusedStream(cause))
        return new Failure('unreachable', `${name} refused the call${why}; nothing of it was done`, { cause })
      return new Failure('unreachable', `${name} could not be reached${why}; nothing was sent`, { cause })
    default: {
      const answered = isHeadTooLarge(cause)
        ? `answered with a head of more than ${MOST_HEAD_BYTES} bytes, which is too large`
        : isMalformed(cause)
          ? `sent an answer that is no well-formed HTTP${why}`
          : undefined
      if (answered !== undefined) {
        const message = `${name} ${answered}; the call has reached it, and a write may have been done`
        return new Failure('interrupted', message, { cause })
      }
      const interim = ending.kind === 'interrupted' ? ending.interim : undefined
      const after = interim === undefined ? '' : ` after an interim response, ${interim},`
      return new Failure('interrupted', `${name} broke the connection${after} before it answered${why}`, { cause })
    }
  }
}
