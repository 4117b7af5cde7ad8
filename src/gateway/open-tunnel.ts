import { responseHeaders } from '../upstream/headers.ts'
import type { Switched } from './attempt.ts'
import type { Call } from './call.ts'
import type { Delivered } from './forwarded.ts'
import { ownHeaders, tightestOf } from './own-headers.ts'
import type { Upstream } from './snapshot.ts'

/** Answers a client whose upstream agreed to a WebSocket, and passes on what either side sends until the end of both. */
export function openTunnel(call: Call, { config }: Upstream, { status, fields, socket }: Switched): Promise<Delivered> {
  return new Promise((resolve, reject) => {
    try {
      call.onHead?.()
      const tightest = tightestOf(call)
      const headers = responseHeaders(fields, tightest !== undefined)
      headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
      ownHeaders(call, headers, tightest)
      call.response.writeHead(status, headers)
      call.response.flushHeaders()
      call.upgrade!.tunnelTo(socket, call.clock, config.timeouts.idle, (end, error) => {
        if (error !== undefined) reject(error)
        else resolve(end === 'broken_off' ? { kind: end, cause: undefined } : { kind: end })
      })
    } catch (mistake) {
      socket.destroy()
      reject(mistake)
    }
  })
}
