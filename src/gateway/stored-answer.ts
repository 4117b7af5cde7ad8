import { cacheStatus, type CacheStatus } from '../cache/cache-status.ts'
import { headersOf304, isNotModified } from '../cache/conditional.ts'
import type { Entry } from '../cache/entry.ts'
import type { CacheResult } from '../observe/metrics.ts'
import { breakOffWhenIdle } from './break-off.ts'
import type { Answering, Target } from './call.ts'
import { DELIVERED, type Forwarded } from './forwarded.ts'
import { ownHeaders, tightestOf } from './own-headers.ts'
import { leadToGateway } from './own-links.ts'

/** An answer from the cache. */
export interface StoredAnswer {
  readonly kind: 'stored'
  readonly entry: Entry
  /** What the cache did for the call, as its metric and log line say it; undefined where the call is made for no client. */
  readonly result: CacheResult | undefined
  readonly status: CacheStatus
}

/** Answers with what is kept, or with a 304 if the client has that already (RFC 9110 §13.2.2). */
export function answerFromCache(call: Answering, target: Target, { entry, result, status }: StoredAnswer): Forwarded {
  const { request, response } = call
  const ageMs = Math.max(0, call.clock.now() - entry.bornAt)
  const isKnown = entry.status === 200 && isNotModified(entry, request.headers, call.clock.wall())
  const headers = isKnown ? headersOf304(entry.headers) : [...entry.headers]
  headers.push('Age', String(Math.floor(ageMs / 1_000)))
  call.cacheStatus = cacheStatus({ ...status, ttlMs: entry.lifetimeMs - ageMs })
  headers.push('Cache-Status', call.cacheStatus)
  if (!isKnown && entry.status !== 204) headers.push('Content-Length', String(entry.body.length))
  if (result !== undefined) countInCache(result, call, target)
  leadToGateway(call, headers)
  ownHeaders(call, headers, tightestOf(call))
  if (isKnown) response.writeHead(304, headers)
  else response.writeHead(entry.status, entry.reason, headers)
  const body = isKnown || request.method === 'HEAD' ? undefined : entry.body
  call.responseBytes = body?.length ?? 0
  response.end(body)
  if (response.writableLength > 0) breakOffWhenIdle(call, target.upstream.config.timeouts.idle)
  return DELIVERED
}

export function countInCache(result: CacheResult, call: Answering, { admissionPolicy }: Target): void {
  call.cached = result
  admissionPolicy.metrics.cached(result).increment(call.id)
}
