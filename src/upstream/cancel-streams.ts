import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2'
import type { Pool } from 'undici'
import { errors } from '../packages/undici.ts'
// @ts-expect-error: it has no types
import symbols from 'undici/lib/core/symbols.js'

// An internal name of undici, see response-parser.ts.
const { kHTTP2Session } = symbols as { readonly kHTTP2Session: unique symbol }

const REFUSED = 'REFUSED_STREAM'

class SessionEnded extends Error {
  readonly code = 'ERR_HTTP2_INVALID_SESSION'
}

/** Whether the upstream refused the stream of a call. It thereby says that it has done no part of the call (RFC 9113 §8.7). */
export function isRefusedStream(error: unknown): boolean {
  return (error as { code?: string } | undefined)?.code === REFUSED
}

/**
 * Makes sure that the upstream learns of each HTTP/2 stream that is given up. undici closes such a stream without an error code, and
 * then destroys it. Without a code Node tells the upstream only when the whole request has gone out, and never if the stream is
 * destroyed before that. The upstream would go on with the call, and the stream would count for ever as an open one. If an answer to
 * it came, Node would make another stream of the answer. The error of that stream at the end of the connection would end the process.
 *
 * Ends a connection that has sent nothing since such a stream began, if it does not answer a PING within `answerWithinMs` milliseconds
 * either. Otherwise all calls would go on to be sent over a connection that is dead, until the system gives it up.
 */
export function cancelStreams(pool: Pool, answerWithinMs: number): void {
  pool.on('connect', (_, targets) => {
    const client = targets.at(-1) as { readonly [kHTTP2Session]?: ClientHttp2Session | null } | undefined
    const session = client?.[kHTTP2Session]
    // Without a session the upstream speaks HTTP/1.1.
    if (session === undefined || session === null) return
    const probe = probeOf(session, answerWithinMs)
    const request = session.request.bind(session)
    session.request = (headers, options) => {
      // Node would make a stream that fails. undici takes this error for the reason to send the call over another connection.
      if (session.destroyed || session.closed) throw new SessionEnded('the HTTP/2 connection has ended')
      const stream = request(headers, options)
      const { bytesRead } = session.socket
      const close = stream.close.bind(stream)
      stream.close = (code = constants.NGHTTP2_CANCEL, callback) => {
        // Node would end the request body first, so that a part of it looked like the whole.
        // oxlint-disable-next-line no-underscore-dangle -- Node has no public way to close a stream without that
        stream._final = (done) => done()
        if (!session.destroyed && session.socket.bytesRead === bytesRead) probe()
        close(code, callback)
      }
      const push = stream.push.bind(stream)
      stream.push = (chunk, encoding) => {
        const isReset = stream.closed && stream.rstCode === constants.NGHTTP2_NO_ERROR && !stream.destroyed
        if (chunk !== null || !isReset) return push(chunk, encoding)
        // The upstream reset the stream before the end of its answer. Without an error code Node would take what came for the whole. It
        // is still busy with the stream.
        process.nextTick(() =>
          stream.destroy(new errors.SocketError('the stream was reset before the end of the answer')),
        )
        return false
      }
      // The upstream may answer before the rest of the body has come. undici then forgets the stream, and it would stay open.
      stream.once('end', () => void (stream.writableEnded || stream.close()))
      return stream.once('error', ownUpToRefusal)
    }
  })
}

/** Makes a function that asks the other end for a sign of life, unless it is asked already. */
function probeOf(session: ClientHttp2Session, answerWithinMs: number): () => void {
  let timer: NodeJS.Timeout | undefined
  const wait = (): void => {
    const { bytesRead } = session.socket
    const judge = (): void => {
      if (timer === undefined || session.destroyed) return
      // The answer may come behind much else.
      if (session.socket.bytesRead > bytesRead) wait()
      else session.destroy(new errors.SocketError('no answer to a PING'))
    }
    // If this process stood still, the answer may have arrived meanwhile. `setImmediate` lets it be read first.
    timer = setTimeout(() => void setImmediate(judge), answerWithinMs).unref()
  }
  return () => {
    if (timer !== undefined) return
    wait()
    session.ping(() => {
      clearTimeout(timer)
      timer = undefined
    })
  }
}

/**
 * Keeps undici from sending a call again after its stream was refused. undici would do so at once, even while the upstream is
 * overloaded. The quota and the retry budget would not count that attempt, and the log would not show it.
 */
function ownUpToRefusal(this: ClientHttp2Stream, error: Error & { code?: string }): void {
  if (this.rstCode !== constants.NGHTTP2_REFUSED_STREAM) return
  error.code = REFUSED
  Object.defineProperty(this, 'rstCode', { value: constants.NGHTTP2_CANCEL })
}
