import type { Permit } from '../queue/permit.ts'
import type { Scrub } from '../credentials/scrub.ts'
import type { BreakerPermit } from '../resilience/breaker.ts'
import type { BodyError, RequestBody } from '../upstream/body.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'
import type { Call, Target } from './call.ts'
import type { Ending } from './decide.ts'
import { Exchange } from './exchange.ts'
import type { ResponseObserver, Intercepted } from './response-observer.ts'
import { Race } from './race.ts'

/** The response is not for the client; the call is to be sent once more. */
export type Retry = { readonly kind: 'retry'; readonly delayMs: number }

/** How an attempt ended, for the loop that made it. */
export type AttemptResult =
  /** The whole response was passed to the client. */
  | { readonly kind: 'delivered' }
  | Retry
  | { readonly kind: 'failed'; readonly ending: Ending; readonly cause: unknown }
  /** The client's own body ended the attempt. */
  | { readonly kind: 'body_failed'; readonly error: BodyError }
  /** The response broke off after its headers had been passed on, and with it the client's connection. */
  | { readonly kind: 'broken_off'; readonly cause: unknown }
  | { readonly kind: 'gone' }
  | Intercepted
  /** The transport does not take the request. */
  | { readonly kind: 'unsendable'; readonly cause: unknown }

export interface AttemptOptions {
  readonly permit: Permit
  readonly breakerPermit: BreakerPermit
  /** A response whose headers take longer is a failure to the breaker. */
  readonly slowMs: number
  readonly body: RequestBody | undefined
  /** Of the credential that it is sent with, if any. */
  readonly credentialVersion: number | undefined
  /** The account has other credentials than the call's. */
  readonly hasOthers: boolean
  /** Longest time to the response's headers, from the dispatch or from the client's last piece of a streamed body. */
  readonly headersMs: number
  /** When the whole call must have response headers, whatever its client still sends; Infinity if it did not say so. */
  readonly until: number
  /** What it is that is over after `headersMs`. */
  readonly limitedBy: 'headers' | 'total'
  /** Decides at the response's headers: a delay to retry the call after, or undefined to deliver the response. */
  judge(ending: Ending): number | undefined
  readonly observer: ResponseObserver | undefined
  /** Removes from the response what the upstream echoes of the request's credential. */
  readonly scrub: Scrub | undefined
}

/**
 * Sends a call once and passes the response on as it comes. Rejects where the gateway made a mistake, and has broken off by then
 * what was under way.
 */
export function attempt(
  call: Call,
  target: Target,
  request: OutgoingRequest,
  options: AttemptOptions,
  hedge?: Hedge,
): Promise<AttemptResult> {
  if (hedge !== undefined) return raced(call, target, { request, options }, hedge)
  return new Promise((resolve, reject) => new Exchange(call, target, options, resolve, reject).start(request))
}

export interface Sending {
  readonly request: OutgoingRequest
  readonly options: AttemptOptions
}

/** A second attempt beside the first. */
export interface Hedge {
  /** How long after the first, unless that has response headers by then. */
  readonly afterMs: number
  /** Sends it, if it may be sent, and is done when it has ended. Never rejects. */
  run(race: Race, send: (sending: Sending) => Promise<void>): Promise<void>
}

/** The same with a second attempt beside it, if the first is late. */
function raced(call: Call, target: Target, first: Sending, hedge: Hedge): Promise<AttemptResult> {
  const race = new Race(call)
  return new Promise((resolve, reject) => {
    const send = ({ request, options }: Sending): Promise<void> =>
      new Promise((end) => {
        const ended = (result: AttemptResult): void => {
          // What the last one comes to is what the call does.
          if (race.runners === 0) resolve(result)
          end()
        }
        const crashed = (error: unknown): void => {
          reject(error)
          end()
        }
        new Exchange(call, target, options, ended, crashed, race).start(request)
      })
    const timer = call.clock.schedule(hedge.afterMs, () => void hedge.run(race, send))
    race.onOver = () => timer.cancel()
    send(first).catch((error: unknown) => {
      race.close()
      reject(error)
    })
  })
}
