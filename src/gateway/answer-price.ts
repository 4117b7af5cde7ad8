import { BodyNumbers } from '../answers/body-numbers.ts'
import type { Pointer } from '../answers/pointer.ts'
import type { Fields } from '../http/fields.ts'
import { unitsByClass } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Permit } from '../queue/permit.ts'
import type { Target } from './call.ts'
import { ruleOf } from './charges.ts'

type Payer = { readonly route: Target['route']; readonly client: { readonly name: string } }

/**
 * The head of a response is here: limits that do not count such an answer get their units back, and so do those of which it tells the
 * price. Returns what reads the price out of its body, for the others.
 */
export function settleHead(permit: Permit, payer: Payer, status: number, fields: Fields): AnswerPrice | undefined {
  const { atHead, atEnd } = permit
  permit.commit(atHead.limits.map((limit, i) => (isUncounted(limit, status) ? 0 : atHead.units[i]!)))
  if (atEnd === undefined) return undefined
  if (atEnd.limits.every((limit) => isUncounted(limit, status))) {
    permit.settle(atEnd.limits.map(() => 0))
    return undefined
  }
  return new AnswerPrice(permit, payer, status, fields)
}

/** Counts for its client what an attempt has cost. After a reload, its limits may be others: then as much as is charged beforehand. */
export function countSpent(
  { chargeSet, spent: units }: Permit,
  { spending, counted, ...policy }: Target['admissionPolicy'],
  client: Target['client'],
  id: string,
): void {
  if (chargeSet !== policy.chargeSet) return spending.count(client, id)
  const byClass = [...unitsByClass({ limits: chargeSet.limits, units }).values()]
  spending.countSpent(
    client,
    id,
    byClass,
    counted.map((i) => units[i]!),
  )
}

function isUncounted(limit: Limit, status: number): boolean {
  return ruleOf(limit)?.isUncounted(status) === true
}

/**
 * Reads what a call costs out of its response while that passes by, and settles its reservations at the end. A limit of which the price
 * does not become known keeps what was reserved; so do all if the response breaks off, or nobody wants its rest.
 */
export class AnswerPrice {
  readonly #permit: Permit
  readonly #payer: Payer
  readonly #status: number
  readonly #fields: Fields
  readonly #limits: readonly Limit[]
  readonly #reserved: readonly number[]
  /** Undefined where headers tell everything. */
  readonly #body: BodyNumbers | undefined
  /** The headers and trailers of a response that was whole. */
  #all: Fields | undefined

  constructor(permit: Permit, payer: Payer, status: number, fields: Fields) {
    const { limits, units } = permit.atEnd!
    this.#permit = permit
    this.#payer = payer
    this.#status = status
    this.#fields = fields
    this.#limits = limits
    this.#reserved = units
    const pointers = limits.flatMap((limit) => pointersOf(limit))
    this.#body = pointers.length === 0 ? undefined : new BodyNumbers(pointers, fields)
  }

  piece(chunk: Buffer): void {
    this.#body?.piece(chunk)
  }

  /** The response was whole. */
  whole(trailers: Fields): void {
    this.#all = { ...this.#fields, ...trailers }
  }

  /** Nothing more of the response comes. Resolves when all is settled that is known. */
  async settle(): Promise<void> {
    const fields = this.#all
    if (fields === undefined) return this.#body?.drop()
    const found = (await this.#body?.end()) ?? []
    let at = 0
    const units = this.#limits.map((limit, i) => {
      const rule = ruleOf(limit)
      const own = found.slice(at, (at += pointersOf(limit).length))
      if (rule?.isUncounted(this.#status) === true) return 0
      const price = rule?.price?.units(fields, own)
      if (price === undefined) return this.#reserved[i]!
      const { route, client } = this.#payer
      rule!.observe(route, client.name, price)
      // A window that is used up by one call can't be used up more. And the ledger counts no more than that.
      return Math.min(price, Math.max(limit.requests, this.#reserved[i]!))
    })
    this.#permit.settle(units)
  }
}

function pointersOf(limit: Limit): readonly Pointer[] {
  return ruleOf(limit)?.price?.pointers ?? []
}
