/** Why a call was forwarded although its route is cached (RFC 9211 §2.2). */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'request' | 'stale'

export interface CacheStatus {
  /** Undefined if a stored answer was given without asking the upstream. */
  readonly forwarded: ForwardReason | undefined
  /** Status of the upstream's own answer, where the client gets another. */
  readonly forwardedStatus?: number | undefined
  /** Milliseconds for which the answer is still fresh. A value below 0 says how long it has been stale. */
  readonly ttlMs?: number | undefined
  readonly isStored?: boolean
  /** Whether the call waited for the answer to another call. */
  readonly isCollapsed?: boolean
  /** Why the cache was bypassed, the answer was not stored, or a stale answer was given. */
  readonly detail?: string | undefined
}

/** The value of the Cache-Status field. It does not contain the key of the answer. */
export function cacheStatus(status: CacheStatus): string {
  const { forwarded, forwardedStatus, ttlMs, isStored, isCollapsed, detail } = status
  let text = forwarded === undefined ? 'sluice; hit' : `sluice; fwd=${forwarded}`
  if (forwardedStatus !== undefined) text += `; fwd-status=${forwardedStatus}`
  if (ttlMs !== undefined) text += `; ttl=${Math.floor(ttlMs / 1_000)}`
  if (isStored === true) text += '; stored'
  if (isCollapsed === true) text += '; collapsed'
  if (detail !== undefined) text += `; detail=${detail}`
  return text
}
