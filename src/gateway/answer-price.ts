import { BodyNumbers } from '../answers/body-numbers.ts'
import type { Pointer } from '../answers/pointer.ts'
import type { Fields } from '../http/fields.ts'
import { type ChargeSet, unitsByClass } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Permit } from '../queue/permit.ts'
import type { Spend, Target } from './call.ts'
import { amountOf } from '../schema/price-schema.ts'
import { ruleOf } from './charges.ts'
import type { Tariff } from './price-list.ts'

export interface Payer {
  readonly route: Target['route']
  readonly client: { readonly name: string }
  /** The prices in money that hold for the call, as far as they are known. */
  readonly tariff?: Tariff
}

/** What the call is charged beside what a permit says: the budgets of its client. */
export type Budgeted = Pick<Spend, 'prices' | 'answered' | 'settle'>

/**
 * The head of a response is here: limits that do not count such an answer get their units back, and so do those of which it tells the
 * price. Returns what reads the price out of its body, for the others, and for `spend`.
 */
export function settleHead(
  permit: Permit,
  spend: Budgeted | undefined,
  payer: Payer,
  status: number,
  fields: Fields,
): AnswerPrice | undefined {
  spend?.answered(status)
  const budgeted = spend?.prices === undefined ? undefined : spend
  let atEnd: ChargeSet | undefined
  if (permit.isSettled) {
    const { atHead } = permit
    atEnd = permit.atEnd
    permit.commit(atHead.limits.map((limit, i) => (isUncounted(limit, status) ? 0 : atHead.units[i]!)))
    if (atEnd?.limits.every((limit) => isUncounted(limit, status)) === true) {
      permit.settle(atEnd.limits.map(() => 0))
      atEnd = undefined
    }
  }
  if (atEnd === undefined && budgeted === undefined) return undefined
  return new AnswerPrice({ permit, reserved: atEnd, spend: budgeted, payer, status, fields })
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
    counted.map((i) => amountOf(chargeSet.limits[i]!, units[i]!)),
  )
}

/** How long the answer to a call is of use without its client, because it tells the price: in milliseconds, 0 for not at all. */
export function finishMsOf({ atEnd }: Permit, spend: Budgeted | undefined, { tariff }: Payer): number {
  let mostMs = spend?.prices?.finishMsFor(tariff) ?? 0
  for (const limit of atEnd?.limits ?? []) mostMs = Math.max(mostMs, ruleOf(limit)?.finishMsFor(tariff) ?? 0)
  return mostMs
}

function isUncounted(limit: Limit, status: number): boolean {
  return ruleOf(limit)?.isUncounted(status) === true
}

interface PricedResponse {
  readonly permit: Permit
  readonly reserved: ChargeSet | undefined
  readonly spend: Budgeted | undefined
  readonly payer: Payer
  readonly status: number
  readonly fields: Fields
}

/**
 * Reads what a call costs out of its response while that passes by, and settles its reservations at the end. A limit of which the price
 * does not become known keeps what was reserved. If the response breaks off, so do all of which its head has not told the price: nobody
 * knows what the upstream counts of it. Its client may leave before its end; `finishMs` says how long it is worth reading without one.
 */
export class AnswerPrice {
  readonly #response: PricedResponse
  /** Undefined where headers tell everything. */
  readonly #body: BodyNumbers | undefined
  readonly finishMs: number
  /** By when it must have ended, by the gateway's clock: its client left before the head was here. */
  finishBy = Infinity
  /** The headers and trailers of a response that was whole. */
  #all: Fields | undefined

  constructor(response: PricedResponse) {
    this.#response = response
    const { permit, reserved, spend, payer, status, fields } = response
    const ofLimits = reserved?.limits.flatMap(pointersOf) ?? []
    const pointers = [...ofLimits, ...(spend?.prices?.pointers ?? [])]
    const isTold = (reserved?.limits ?? []).every((limit) => ruleOf(limit)?.isToldBy(fields) === true)
    const isFree = spend?.prices?.isFree(status) !== false
    this.finishMs = isTold && isFree ? 0 : finishMsOf(permit, isFree ? undefined : spend, payer)
    this.#body = pointers.length === 0 ? undefined : new BodyNumbers(pointers, fields)
  }

  piece(chunk: Buffer): void {
    this.#body?.piece(chunk)
  }

  /** The response was whole. */
  whole(trailers: Fields): void {
    this.#all = { ...this.#response.fields, ...trailers }
  }

  /** Nothing more of the response comes. Resolves when all is settled that is known. */
  async settle(): Promise<void> {
    if (this.#all === undefined) return this.settleByHead()
    this.#settleBy(this.#all, (await this.#body?.end()) ?? [])
  }

  /** The rest of the response is of no use: what its head tells is settled. */
  settleByHead(): void {
    this.#body?.drop()
    this.#settleBy(this.#response.fields, [])
  }

  #settleBy(fields: Fields, found: readonly (number | undefined)[]): void {
    const { permit, reserved, spend, payer, status } = this.#response
    const isWhole = this.#all !== undefined
    let at = 0
    const { route, client, tariff } = payer
    if (reserved !== undefined) {
      const { limits, units: reservedUnits } = reserved
      const units = limits.map((limit, i) => {
        const rule = ruleOf(limit)
        const own = found.slice(at, (at += pointersOf(limit).length))
        if (rule?.isUncounted(status) === true) return 0
        const isKnown = isWhole || rule?.isToldBy(fields) === true
        const price = isKnown ? rule?.spent(tariff, fields, own) : undefined
        if (price === undefined) return reservedUnits[i]!
        rule!.observe(route, client.name, price)
        return bounded(price, limit, reservedUnits[i]!)
      })
      permit.settle(units)
    }
    const prices = spend?.prices
    if (prices === undefined || !isWhole) return
    const price = prices.isFree(status) ? 0 : prices.units(fields, found.slice(at), tariff)
    if (price !== undefined) spend!.settle(price)
  }
}

/** A window that is used up by one call can't be used up more. And the ledger counts no more than that. */
export function bounded(price: number, { requests }: Limit, reserved: number): number {
  return Math.min(price, Math.max(requests, reserved))
}

function pointersOf(limit: Limit): readonly Pointer[] {
  return ruleOf(limit)?.pointers ?? []
}
