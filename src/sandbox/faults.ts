import Type, { type Static } from 'typebox'
import type { Random } from '../time/clock.ts'
import { DialectSchema } from './answers.ts'
import { checkFields, FieldError } from './fields.ts'

const MS = Type.Number({ minimum: 0 })

const FaultSchema = Type.Partial(
  Type.Object({
    /** How long the answer is held back, once the request is here in full. */
    latencyMs: Type.Union([MS, Type.Object({ min: MS, max: MS }, { additionalProperties: false })], {
      expected: 'a number of milliseconds, or {"min": …, "max": …}',
    }),
    /** Answered in place of success. */
    status: Type.Integer({ minimum: 400, maximum: 599, expected: 'a whole number from 400 to 599' }),
    /** In seconds, or a dialect; for every 429 and 503. */
    retryAfter: Type.Union([Type.Integer({ minimum: 0 }), DialectSchema], {
      expected: 'a whole number of seconds, or one of seconds, date, none',
    }),
    /** Where the connection is reset. */
    reset: Type.Enum(['before-headers', 'after-headers', 'mid-body'], {
      expected: 'one of before-headers, after-headers, mid-body',
    }),
    /** What never comes, while the connection stays: the headers, or the second half of the body. */
    stall: Type.Enum(['headers', 'body'], { expected: 'one of headers, body' }),
    /** The part of the matching requests to which it happens. */
    share: Type.Number({ minimum: 0, maximum: 1, expected: 'a number from 0 to 1' }),
    /** How often it happens before it is over. */
    times: Type.Integer({ minimum: 1, expected: 'a whole number, at least 1' }),
    match: Type.Partial(
      Type.Object({
        method: Type.String({ pattern: '^[A-Z-]+$', expected: 'a method in capitals, such as GET' }),
        /** How the path begins, without `/gateway` and empty segments. */
        pathPrefix: Type.String({ pattern: '^/', expected: 'a path that begins with "/"' }),
      }),
    ),
  }),
)

/** What goes wrong at the upstream. It happens to refused requests too, but `status` does not replace a 401 or 429. */
export type Fault = Static<typeof FaultSchema>

/** The fault in force, and how often it will still happen. */
export class Faults {
  readonly #random: Random
  #fault: Fault = {}
  #left = 0

  constructor(random: Random) {
    this.#random = random
  }

  /** Throws a `FieldError`, and keeps the one before, if the new one makes no sense. */
  set(given: Fault): void {
    const fault = checkFields(FaultSchema, given)
    const { latencyMs, reset, stall } = fault
    if (typeof latencyMs === 'object' && latencyMs.min > latencyMs.max) {
      throw new FieldError(['latencyMs'], '"min" must not be above "max"')
    }
    if (reset !== undefined && stall !== undefined) {
      throw new FieldError(['stall'], 'does not go with "reset", which ends the connection')
    }
    this.#fault = structuredClone(fault)
    this.#left = fault.times ?? Infinity
  }

  clear(): void {
    this.#left = 0
  }

  /** The fault, if it happens to such a request. */
  draw(method: string, path: string): Fault | undefined {
    if (this.#left === 0) return undefined
    const { match, share = 1 } = this.#fault
    if (match?.method !== undefined && match.method !== method) return undefined
    if (match?.pathPrefix !== undefined && !path.startsWith(match.pathPrefix)) return undefined
    if (this.#random() >= share) return undefined
    this.#left--
    return this.#fault
  }
}
