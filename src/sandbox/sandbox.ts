/*
 * src/sandbox: a stand-in for an upstream, with its limits and faults, for demos and tests.
 * It imports presets, routing, schema, http and time, and nothing of the gateway.
 * A change here must prove that it counts exactly as the vendor would (test/sandbox).
 */

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServer } from '../http/node-http.ts'
import { type Clock, type Random, systemClock, type Timer } from '../time/clock.ts'
import { type Answer, type Dialect, DialectSchema, errorAnswer, retryAfterOf, successAnswer } from './answers.ts'
import { hasBody } from './body.ts'
import { serveControl } from './control.ts'
import { type Fault, Faults } from './faults.ts'
import { checkFields } from './fields.ts'
import { identify, type Question, routeTable } from './identify.ts'
import { type Counts, Limits, type LimitsGiven, type Verdict } from './limits.ts'
import { receive, SeenLog, type SeenRequest } from './seen.ts'
import { Store } from './store.ts'

export interface SandboxOptions {
  /** Address of both ports, 127.0.0.1 by default. The control port asks for no credential and shows tokens as received. */
  readonly host?: string
  /** 0, the default, takes a free port. */
  readonly port?: number
  readonly controlPort?: number
  /** Limits by class. A class that is left out has those of the Harness preset. */
  readonly limits?: LimitsGiven
  /** How a 429 says when to come back: `none` by default, because Harness does not say it. */
  readonly retryAfter?: Dialect
  readonly clock?: Clock
  readonly random?: Random
}

/**
 * Starts a stand-in for the Harness API: real HTTP, the vendor's limits enforced exactly, answers of its shape, and faults
 * on demand. Throws if a port can't be had, and a `FieldError` if an option makes no sense.
 */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const sandbox = new Sandbox(options)
  const { host = '127.0.0.1', port = 0, controlPort = 0 } = options
  try {
    await sandbox.listen(host, port, controlPort)
  } catch (error) {
    await sandbox.stop()
    throw error
  }
  return sandbox
}

// Longer than gateways keep idle connections. Otherwise the sandbox could close one just as a request is on its way.
const KEEP_ALIVE_MS = 75_000
/** The wait that a 429 or 503 of a fault announces. It is fixed, because nobody knows when the fault will end. */
const FAULT_RETRY_MS = 1_000

/** A running stand-in. Its methods are what the control port offers; a value that makes no sense throws a `FieldError`. */
export class Sandbox {
  url = ''
  controlUrl = ''
  readonly #server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
    this.#serve(request, response).catch(() => response.destroy())
  })
  readonly #control = createServer((request, response) => {
    serveControl(this, request, response).catch(() => response.destroy())
  })
  readonly #routes = routeTable()
  readonly #clock: Clock
  readonly #random: Random
  readonly #limits: Limits
  readonly #faults: Faults
  readonly #seen = new SeenLog()
  readonly #store = new Store()
  readonly #timers = new Set<Timer>()
  #retryAfter: Dialect = 'none'

  constructor({ limits = {}, retryAfter = 'none', clock = systemClock, random = Math.random }: SandboxOptions) {
    this.#clock = clock
    this.#random = random
    this.#limits = new Limits(limits)
    this.#faults = new Faults(random)
    this.setRetryAfter(retryAfter)
  }

  /** `startSandbox` has done this already. */
  async listen(host: string, port: number, controlPort: number): Promise<void> {
    this.url = await listen(this.#server, port, host)
    this.controlUrl = await listen(this.#control, controlPort, host)
  }

  /** Breaks off every connection and leaves nothing behind. Safe to call twice. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) timer.cancel()
    await Promise.all([close(this.#server), close(this.#control)])
  }

  /** The latest requests, at most `limit`, in the order of their arrival. */
  seen(limit?: number): readonly SeenRequest[] {
    return this.#seen.latest(limit)
  }

  counts(): Counts {
    return this.#limits.counts()
  }

  /** Forgets what was seen, counted (the windows too) and stored. Faults and limits stay. */
  reset(): void {
    this.#seen.clear()
    this.#limits.reset()
    this.#store.clear()
  }

  /** Sets the fault, in place of the one before. */
  setFaults(fault: Fault): void {
    this.#faults.set(fault)
  }

  clearFaults(): void {
    this.#faults.clear()
  }

  /** Changes the limits of the classes given. The count of a class begins anew if the length of its window changes. */
  setLimits(limits: LimitsGiven): void {
    this.#limits.set(limits)
  }

  setRetryAfter(dialect: Dialect): void {
    this.#retryAfter = checkFields(DialectSchema, dialect, ['retryAfter'])
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const at = this.#clock.now() // the head has just been parsed: this is the arrival that counts
    const question = identify(request, this.#routes)
    const { account, isProven, route, path } = question
    const verdict = isProven ? this.#limits.arrive(account, route.charges, at) : this.#limits.turnAway()
    const seen = this.#seen.add(at, request, question)
    const fault = this.#faults.draw(seen.method, path)
    const body = hasBody(request) ? await receive(request, seen) : ''
    if (body === undefined) return // the client left in the middle of it
    if (fault?.latencyMs !== undefined) await this.#pause(fault.latencyMs)
    if (response.destroyed || fault?.stall === 'headers') return
    if (fault?.reset === 'before-headers') {
      request.socket.resetAndDestroy()
      return
    }
    const answer = this.#answer(question, verdict, fault, body)
    seen.status = answer.status
    send(answer, fault, request, response)
  }

  #answer(question: Question, verdict: Verdict, fault: Fault | undefined, body: string): Answer {
    const dialect = fault?.retryAfter ?? this.#retryAfter
    switch (verdict.kind) {
      case 'unauthenticated':
        return errorAnswer(question, 401, 'Token is not valid.')
      case 'throttled':
        return errorAnswer(
          question,
          429,
          'Too many requests',
          retryAfterOf(dialect, verdict.waitMs, this.#clock.wall()),
        )
      case 'accepted': {
        if (fault?.status === undefined) return successAnswer(question, body, this.#store, this.#clock.wall())
        const retryAfter = retryAfterOf(dialect, FAULT_RETRY_MS, this.#clock.wall())
        return errorAnswer(question, fault.status, 'the sandbox was told to answer so', retryAfter)
      }
    }
  }

  #pause(latencyMs: number | { min: number; max: number }): Promise<void> {
    const delayMs =
      typeof latencyMs === 'number' ? latencyMs : latencyMs.min + this.#random() * (latencyMs.max - latencyMs.min)
    return new Promise((resolve) => {
      const timer = this.#clock.schedule(delayMs, () => {
        this.#timers.delete(timer)
        resolve()
      })
      this.#timers.add(timer)
    })
  }
}

function send(answer: Answer, fault: Fault | undefined, { socket }: IncomingMessage, response: ServerResponse): void {
  const { status, headers, body } = answer
  response.writeHead(status, headers)
  if (fault?.reset === undefined && fault?.stall === undefined) {
    response.end(body)
    return
  }
  response.flushHeaders()
  // The head has announced the whole length, so that the client can tell that the rest is missing.
  if (fault.reset !== 'after-headers') response.write(body.slice(0, body.length / 2))
  // A turn later, because a reset throws away what was not yet handed to the system.
  if (fault.reset !== undefined) setImmediate(() => socket.resetAndDestroy())
}

function listen(server: Server, port: number, host: string): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      const { address, family, port } = server.address() as AddressInfo
      resolve(`http://${family === 'IPv6' ? `[${address}]` : address}:${port}`)
    })
  })
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
