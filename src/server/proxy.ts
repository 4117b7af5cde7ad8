import { randomUUIDv7 } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Random } from '../time/clock.ts'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { GuessGuard } from '../clients/guess-guard.ts'
import type { Client } from '../clients/client.ts'
import { authenticateProxied, tooManyAttempts } from '../gateway/authenticate.ts'
import { breakOff } from '../gateway/break-off.ts'
import { forwardWithin } from '../gateway/budget.ts'
import {
  type AddressedBy,
  type Arriving,
  Call,
  type Identifying,
  type Target,
  type Tunnelling,
} from '../gateway/call.ts'
import { Failure, isFailure } from '../gateway/failure.ts'
import { forward } from '../gateway/forward.ts'
import type { Forwarded } from '../gateway/forwarded.ts'
import { identify } from '../gateway/identify.ts'
import { answerAsLastHop, isLastHop } from '../gateway/max-forwards.ts'
import { PROXY_KEY_HEADERS, proxiedOn, proxyKey } from '../gateway/proxied.ts'
import { Roster } from '../time/roster.ts'
import { Tunnels } from '../gateway/tunnel.ts'
import { Upgrade } from '../gateway/upgrade.ts'
import { Cancellation } from '../time/cancellation.ts'
import { endOfTurn } from '../time/turns.ts'
import type { Snapshot } from '../gateway/snapshot.ts'
import { requestIdOf } from '../http/request-id.ts'
import { flatCopy } from '../schema/flat-copy.ts'
import type { RequestRecord } from '../requests/story.ts'
import type { Wanted } from '../requests/history.ts'
import { originalUrl } from './access-line.ts'
import { CallRecorder, type CallTimes, type RecorderOptions, UNANSWERED } from './call-recorder.ts'
import { type AddressOf, clientAddress } from './client-address.ts'
import { Pipelines } from './pipelines.ts'
import { closeAfter, endWith, rawRefusal, refuse } from './respond.ts'
import { whyMalformed } from './well-formed.ts'

export interface ProxyOptions extends RecorderOptions {
  /** The configuration in force. Each call reads it once. */
  readonly snapshot: () => Snapshot
  readonly random: Random
  /** Blocks addresses that try many keys. Without it nobody is blocked. */
  readonly guard?: GuessGuard
  /** Finds the address of a request's client. Default: the address of the connection. */
  readonly addressOf?: AddressOf
  /** Tells how a client addressed the gateway. Default: as its request says. */
  readonly addressedBy?: AddressedBy
}

const OF_CONNECTION = clientAddress([])

/** Serves the calls of clients: identifies each, forwards or refuses it, then counts and logs it. */
export class Proxy {
  readonly #options: ProxyOptions & { readonly drain: Cancellation }
  readonly #recorder: CallRecorder
  /** Calls whose response is not finished, in the order in which they came. */
  readonly #active = new Roster<Arriving>()
  /** Calls that have ended and are not recorded yet. */
  readonly #ended: { readonly call: Arriving; readonly result: Forwarded; readonly times: CallTimes }[] = []
  readonly #pipelines = new Pipelines()
  #areConnectionsClosed = false
  readonly #tunnels = new Tunnels()
  #idle: PromiseWithResolvers<void> | undefined

  constructor(options: ProxyOptions) {
    this.#options = { ...options, drain: new Cancellation() }
    this.#recorder = new CallRecorder(options)
  }

  /** Makes every response from now on close its connection. */
  closeConnections(): void {
    this.#areConnectionsClosed = true
  }

  /**
   * Makes every response from now on close its connection, and closes all tunnels. Resolves when no call is active and every
   * call that has ended is recorded. May be called again.
   */
  async drain(): Promise<void> {
    this.closeConnections()
    this.#tunnels.close()
    if (this.#active.size > 0) await (this.#idle ??= Promise.withResolvers()).promise
    await endOfTurn(this.#options.clock)
  }

  /** Breaks off all calls that are not finished. */
  breakOff(): void {
    for (const call of this.#active.all()) breakOff(call)
  }

  /** Logs that connections of an address are closed because it has too many. */
  noteSurplus(address: string): void {
    const message = 'more than server.connectionsPerAddress: further connections of this address are closed'
    this.#options.log.logger.warn({ address }, message)
  }

  /**
   * Refuses bytes that are no HTTP, and closes their connection. If a call is under way on the connection, that call is refused.
   * Otherwise a call is counted and logged of which only the address is known. `hasLeft` says that the connection ended in the
   * middle of a request, because its client left: the call that is under way then ends as `client_gone`.
   */
  refuseConnection(socket: Socket, failure: Failure, hasLeft: boolean): void {
    // The last answer on this connection was sent already. Further bytes are discarded.
    if (socket.writableEnded || socket.destroyed) return
    const calls = this.#active.all().filter(({ request }) => request.socket === socket)
    if (calls.length === 0) {
      const id = randomUUIDv7()
      endWith(socket, rawRefusal(id, failure))
      return this.#recorder.unread(id, socket.remoteAddress, failure)
    }
    const last = calls.at(-1)!
    // While the last request is incomplete, the bytes belong to its body. Otherwise they come after all requests, and the
    // connection ends with the answer to the first call that is still active.
    const call = last.request.complete ? calls[0]! : last
    if (call.response.writableEnded) {
      call.response.once('close', () => this.refuseConnection(socket, failure, hasLeft))
      return
    }
    // The bytes may belong to a request that waits for the answers before its own. The client would take a refusal for one of
    // those answers.
    if (this.#pipelines.haveWaitedOn(socket)) return void socket.destroy()
    if (!hasLeft) call.malformed = failure
    // A refusal is sent only if no other response is due before it, and none has begun. The client would take it for the
    // response to an earlier request, or for a part of the body.
    if (call !== calls[0]) socket.destroy()
    else if (call.response.headersSent) breakOff(call)
    else endWith(socket, rawRefusal(call.id, failure, call))
    call.gone.cancel()
  }

  /** Whether nothing is read from a connection now, because too many of its requests wait for earlier ones. */
  isHeldBack(socket: Socket): boolean {
    return this.#pipelines.isHeldBack(socket)
  }

  /**
   * Ends the calls of a closed connection whose responses still waited for earlier ones. Node does so itself, unless a later
   * Upgrade or CONNECT made it hand the connection over.
   */
  endQueued(socket: Socket): void {
    for (const { request, response } of this.#active.all()) {
      if (request.socket === socket && response.socket === null && !response.closed) response.emit('close')
    }
  }

  /** Counts and logs a connection that ended before its first request, so that no answer could be sent. */
  noteLost(address: string | undefined, message: string): void {
    this.#recorder.unread(randomUUIDv7(), address, new Failure('invalid_request', message), UNANSWERED)
  }

  /** Refuses all calls that wait for quota or for their next attempt, now and from now on. */
  refuseWaiting(): void {
    this.#options.drain.cancel()
    for (const { accounts } of this.#options.snapshot().upstreams.values()) {
      for (const { admissionPolicies } of accounts.values()) admissionPolicies.close('draining')
    }
  }

  /**
   * Serves one call. Never rejects. `preRejection` says why a request can't be served, whatever it asks for: a `Failure` of
   * the client, or the error of a bug. `switching` is given for a request that asks for a WebSocket.
   */
  async serve(
    request: IncomingMessage,
    response: ServerResponse,
    preRejection?: Failure | Error,
    switching?: { readonly socket: Duplex; readonly head: Buffer },
  ): Promise<void> {
    // An earlier answer was the last one on this connection, so this request can't be answered.
    if (request.socket.writableEnded) return void request.socket.destroy()
    // A request that waits for the answers before its own counts as unread. If the connection ends first, it is not logged.
    if (this.#pipelines.waitsForTurn(request, response))
      return this.#pipelines.wait(request, response, () => void this.serve(request, response, preRejection))
    const call = this.#arrive(request, response)
    const { callers, keyHeaders } = call.snapshot
    let result: Forwarded
    try {
      if (switching !== undefined) call.upgrade = new Upgrade(switching.socket, switching.head, this.#tunnels)
      if (preRejection instanceof Error) throw preRejection
      // A malformed head is refused without waiting. Node's parser may refuse the bytes behind it before this turn ends, and
      // its message would say less.
      const malformed = preRejection ?? this.#malformed(call)
      if (malformed === undefined) await endOfTurn(call.clock)
      const proxied = proxiedOn(request.socket)
      // The check of a signed token may have to fetch the issuer's keys first.
      const tokens =
        proxied === undefined
          ? callers.check(request.headers, keyHeaders)
          : callers.check(proxyKey(proxied, request.headers), PROXY_KEY_HEADERS)
      if (tokens !== undefined) await tokens
      const found = malformed ?? this.#identify(call)
      const target = isFailure(found) && found.guess !== undefined ? await this.#count(call, found) : found
      result = isFailure(target) ? { kind: 'refused', failure: target } : await this.#forward(call, target)
      if (result.kind === 'refused') refuse(call, result.failure)
      else if (result.kind === 'delivered' && switching === undefined && !request.complete) closeAfter(call)
    } catch (error) {
      result = this.#internalError(call, error)
    }
    this.#record(call, result)
  }

  /**
   * Serves a CONNECT of the forward proxy. Never rejects. `open` makes a tunnel for the client whose key the request presents,
   * and resolves when the tunnel has ended. It returns undefined if the calls inside the tunnel are served one by one, and a
   * refusal if it makes no tunnel.
   */
  async serveConnect(
    request: IncomingMessage,
    response: ServerResponse,
    open: (call: Tunnelling, client: Client) => Forwarded | undefined | Promise<Forwarded>,
  ): Promise<void> {
    const call = this.#arrive(request, response)
    const { callers } = call.snapshot
    let result: Forwarded | undefined
    try {
      const headers = proxyKey({ tunnel: undefined }, request.headers)
      await callers.check(headers, PROXY_KEY_HEADERS)
      const blockedMs = this.#options.guard?.blockedMs(call.address) ?? 0
      const found = authenticateProxied(call.snapshot, { headers, connection: request.socket, blockedMs })
      const client = isFailure(found) ? await this.#count(call, found) : found
      if (!isFailure(client)) call.client = client
      result = isFailure(client) ? { kind: 'refused', failure: client } : await open(call, client)
      if (result?.kind === 'refused') refuse(call, result.failure)
    } catch (error) {
      result = this.#internalError(call, error)
    }
    if (result !== undefined) this.#record(call, result)
  }

  #arrive(request: IncomingMessage, response: ServerResponse): Arriving & Identifying {
    const snapshot = this.#options.snapshot()
    // Node then adds `Connection: close`. The client's next call needs a new connection, which a load balancer gives to a
    // gateway that keeps running.
    if (this.#areConnectionsClosed) response.shouldKeepAlive = false
    const { clock, tracing, addressOf = OF_CONNECTION } = this.#options
    const id = requestIdOf(request.headers) ?? flatCopy(randomUUIDv7())
    const call: Arriving & Identifying = new Call(id, request, response, snapshot, clock, this.#closed)
    call.address = addressOf(request)
    call.addressedBy = this.#options.addressedBy
    call.trace = tracing?.begin(request.headers)
    snapshot.calls.begin()
    this.#active.add(call)
    return call
  }

  /**
   * Records a call together with all that end in this step of the event loop. That is before their clients have read the end of
   * their responses.
   */
  #record(call: Arriving, result: Forwarded): void {
    if (this.#ended.push({ call, result, times: this.#recorder.timesOf(call) }) === 1)
      process.nextTick(this.#recordEnded)
  }

  readonly #recordEnded = (): void => {
    const at = this.#options.clock.wall()
    for (const { call, result, times } of this.#ended.splice(0)) {
      call.isRecorded = true
      try {
        this.#recorder.record(call, result, times, at)
      } catch (error) {
        this.#logMistake(call, error)
      }
    }
  }

  #forward(call: Call, target: Target): Forwarded | Promise<Forwarded> {
    if (call.request.method === 'OPTIONS' && isLastHop(call.request)) return answerAsLastHop(call)
    const { budget } = target.client
    if (budget === undefined && target.upstream.prices === undefined) return forward(call, target, this.#options)
    return forwardWithin(budget, call, target, this.#options)
  }

  readonly #closed = (call: Call): void => {
    call.snapshot.calls.end()
    this.#active.delete(call)
    if (this.#active.size > 0) return
    this.#idle?.resolve()
    this.#idle = undefined
  }

  #malformed(call: Identifying): Failure | undefined {
    const malformed = whyMalformed(call.request, call.snapshot.config.server.maxHeaderBytes)
    if (malformed === undefined) return undefined
    // It may be unclear where the next request begins, so the connection closes.
    call.response.shouldKeepAlive = false
    return new Failure('invalid_request', malformed)
  }

  #identify(call: Identifying): Target | Failure {
    const { method = '', headers, socket } = call.request
    const blockedMs = this.#options.guard?.blockedMs(call.address) ?? 0
    const proxied = proxiedOn(socket)
    const head = { method, url: originalUrl(call.request), headers, connection: socket, proxied, blockedMs }
    const target = identify(call.snapshot, head, call)
    if (!isFailure(target)) call.target = target
    return target
  }

  /** Counts a wrong key against its address. Returns `failure`, or `too_many_attempts` if that key was one too many. */
  async #count({ address }: Call, failure: Failure): Promise<Failure> {
    const { guard } = this.#options
    if (guard === undefined || failure.guess === undefined) return failure
    const blockedMs = await guard.count(address, failure.guess)
    return blockedMs > 0 ? tooManyAttempts(blockedMs, failure.guess) : failure
  }

  /** Ends a call that met a bug. The client learns only that there was one; the log has the error. */
  #internalError(call: Call, error: unknown): Forwarded {
    const failure: Failure = new Failure('internal', 'the gateway made a mistake; its log knows more', { cause: error })
    this.#logMistake(call, error)
    try {
      refuse(call, failure)
    } catch (again) {
      this.#logMistake(call, again)
      breakOff(call)
    }
    return { kind: 'refused', failure }
  }

  #logMistake({ id }: Call, error: unknown): void {
    this.#options.log.logger.error({ err: error, correlationId: id }, 'a call failed in the gateway itself')
  }

  /** The calls of this process that are wanted: first those under way, then those that ended, as the history gives them. */
  *requests(wanted: Wanted = {}): Iterable<RequestRecord | undefined> {
    const { history } = this.#options
    // The reader may pause between two calls. Both lists are taken now, so a call that ends in a pause is not listed twice. A call that
    // was recorded is in the history, if that keeps any, though its client may still read.
    const ended = history?.newest(wanted) ?? []
    const isInHistory = ({ isRecorded }: Call): boolean => isRecorded && history?.keepsAny === true
    const isListed = (call: Call): boolean => !isInHistory(call) && (wanted.id ?? call.id) === call.id
    const running = this.#active.all().filter(isListed)
    for (const call of running) yield this.#recorder.running(call)
    yield* ended
  }
}
