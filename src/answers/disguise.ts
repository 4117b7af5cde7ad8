import { codingsOf, unpacked } from '../http/content-coding.ts'
import { type Fields, joined } from '../http/fields.ts'
import type { DisguiseConfig } from '../schema/schema.ts'
import { jsonOf } from './body-text.ts'
import { type Pointer, pointerOf, someAt } from './pointer.ts'

/** A refusal is short, so a longer body is not looked at. */
export const LOOK_BYTES = 65_536

const JSON_TYPE = /^\s*[\w.-]+\/(?:[\w.-]+\+)?json\s*(?:;|$)/i

/** One entry of `throttle.when`, as it is compared. */
interface Disguise {
  readonly statuses: ReadonlySet<number> | undefined
  readonly classes: ReadonlySet<string> | undefined
  readonly headers: readonly { readonly name: string; readonly values: readonly string[] }[]
  readonly body: readonly { readonly at: Pointer; readonly values: readonly unknown[] }[]
}

/** The answers by which an upstream says that it takes no more calls for now, without a status that says so. */
export class Disguises {
  readonly #all: readonly Disguise[]

  constructor(configs: readonly DisguiseConfig[]) {
    this.#all = configs.map(({ status, classes, header = {}, body = {} }) => ({
      statuses: status === undefined ? undefined : new Set([status].flat()),
      classes: classes === undefined ? undefined : new Set(classes),
      headers: Object.entries(header).map(([name, values]) => ({
        name: name.toLowerCase(),
        values: [values].flat().map((value) => value.toLowerCase()),
      })),
      body: Object.entries(body).map(([at, values]) => ({ at: pointerOf(at), values: [values].flat() })),
    }))
  }

  /** Whether an answer with this head is such a refusal. If only its body can tell, returns what judges the body. */
  judge(className: string, status: number, fields: Fields): boolean | BodyLook {
    let left: Disguise[] | undefined
    for (const disguise of this.#all) {
      if (!isOfHead(disguise, className, status, fields)) continue
      if (disguise.body.length === 0) return true
      if (mayTell(fields)) (left ??= []).push(disguise)
    }
    return left === undefined ? false : new BodyLook(left, codingsOf(fields['content-encoding']))
  }
}

function isOfHead(
  { statuses, classes, headers }: Disguise,
  className: string,
  status: number,
  fields: Fields,
): boolean {
  if (statuses?.has(status) === false || classes?.has(className) === false) return false
  return headers.every(({ name, values }) => values.includes(joined(fields[name]).trim().toLowerCase()))
}

/** Streams of events, and bodies that are known to be long, are passed on at once. */
function mayTell(fields: Fields): boolean {
  const length = Number(fields['content-length'] ?? 0)
  return length <= LOOK_BYTES && JSON_TYPE.test(joined(fields['content-type']))
}

/** Keeps a body until it is whole, or too long to be a refusal. */
export class BodyLook {
  readonly #disguises: readonly Disguise[]
  readonly #codings: readonly string[]
  readonly #pieces: Buffer[] = []
  #bytes = 0

  constructor(disguises: readonly Disguise[], codings: readonly string[]) {
    this.#disguises = disguises
    this.#codings = codings
  }

  /** Takes in a piece; returns whether more may be wanted. */
  piece(chunk: Buffer): boolean {
    this.#pieces.push(chunk)
    this.#bytes += chunk.length
    return this.#bytes <= LOOK_BYTES
  }

  /** Whether the body, which is whole now, is that of a refusal. */
  matches(): boolean {
    const body = Buffer.concat(this.#pieces)
    // Some servers name a coding, and send the body as it is.
    const value = jsonOf(unpacked(body, this.#codings) ?? body)
    if (value === undefined) return false
    return this.#disguises.some((disguise) =>
      disguise.body.every(({ at, values }) => someAt(value, at, (found) => values.includes(found))),
    )
  }
}
