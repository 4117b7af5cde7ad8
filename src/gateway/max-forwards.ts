import type { IncomingMessage } from 'node:http'
import { onlyMember } from '../http/fields.ts'
import type { Answering } from './call.ts'
import { DELIVERED, type Forwarded } from './forwarded.ts'
import { ownHeaders, tightestOf } from './own-headers.ts'

// Max-Forwards says how often an OPTIONS may still be forwarded (RFC 9110 §7.6.2). Other methods may ignore it.

/** Whether the request may not be forwarded, so that the gateway has to answer it itself. */
export function isLastHop({ headers }: IncomingMessage): boolean {
  return /^0+$/.test(onlyMember(headers['max-forwards']) ?? '')
}

/** Answers that the gateway is here. It does not know what the vendor would allow. */
export function answerAsLastHop(call: Answering): Forwarded {
  const headers: string[] = []
  ownHeaders(call, headers, tightestOf(call))
  call.response.writeHead(204, headers)
  call.response.end()
  return DELIVERED
}

/** Counts the hop to the upstream. */
export function countHop(headers: string[]): void {
  for (let i = 0; i < headers.length; i += 2) {
    const value = headers[i + 1]!
    if (headers[i]!.toLowerCase() !== 'max-forwards' || !/^\d+$/.test(value)) continue
    headers[i + 1] = String(Math.max(0, Math.min(Number(value), Number.MAX_SAFE_INTEGER) - 1))
  }
}
