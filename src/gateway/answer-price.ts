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

/** The charge of the call to the budgets of its client, which its permit does not cover. */
export type Budgeted = Pick<Spend, 'prices' | 'answered' | 'settle'>

/**
 * Settles what the head of a response tells. Limits that are settled at the head get their units back if they do not count this
 * status. Limits that are settled at the end get theirs back now only if none of them counts it. Otherwise, and if `spend` has
 * prices, returns what reads the price out of the response; undefined if nothing is left to settle.
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

/** Counts for its client what an attempt has cost. If a reload has changed the limits, counts what the new ones charge beforehand. */
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

/** For how many milliseconds an answer is read on for its price after its client has left; 0 for not at all. */
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
 * Reads the price of a call out of its response as that passes by, and settles the reservations of the call at the end. A limit whose
 * price stays unknown keeps its reservation. If the response breaks off, only prices that its head tells are settled: nobody knows
 * what the upstream counted for the rest. `finishMs` says for how long the response is worth reading after its client has left.
 */
export class AnswerPrice {
  readonly #response: PricedResponse
  /** Undefined if no price is in the body. */
  readonly #body: BodyNumbers | undefined
  readonly finishMs: number
  /** If the client left before the head was here: when reading has to end, by the gateway's clock. */
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

  /** Call it when nothing more of the response comes. Resolves when all that is known is settled. */
  async settle(): Promise<void> {
    if (this.#all === undefined) return this.settleByHead()
    this.#settleBy(this.#all, (await this.#body?.end()) ?? [])
  }

  /** Settles what the head tells, and drops the body: the rest of the response is of no use. */
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

/**
 * The price as the ledger counts it: at most the whole limit, or the reservation if that is more. No call can use up more than a
 * window.
 */
export function bounded(price: number, { requests }: Limit, reserved: number): number {
  return Math.min(price, Math.max(requests, reserved))
}

function pointersOf(limit: Limit): readonly Pointer[] {
  return ruleOf(limit)?.pointers ?? []
}
