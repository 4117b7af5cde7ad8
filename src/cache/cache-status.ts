/** Why a call was forwarded although its route is cached (RFC 9211 §2.2). */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'request' | 'stale'

export interface CacheStatus {
  /** Undefined for an answer from the store. */
  readonly forwarded: ForwardReason | undefined
  /** Status of the upstream's own answer, where the client gets another. */
  readonly forwardedStatus?: number | undefined
  /** Milliseconds for which the answer is fresh; below 0 it is not any more. */
  readonly ttlMs?: number | undefined
  readonly isStored?: boolean
  /** It waited for the answer to another call. */
  readonly isCollapsed?: boolean
  /** Why something else was done than was to be expected. */
  readonly detail?: string | undefined
}

/** The value of Cache-Status. Of the key it says nothing. */
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
