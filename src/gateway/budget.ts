import type { Budget, BudgetLimit } from '../clients/budget.ts'
import { windowLengthMs } from '../ledger/limit.ts'
import { type Grant, type Ledger, type LimitUsage, StoreUnavailableError } from '../ledger/ledger.ts'
import { Permit } from '../queue/permit.ts'
import { amountOf, amountText } from '../schema/price-schema.ts'
import { roughly } from '../schema/units.ts'
import { hasBody } from '../upstream/body.ts'
import { bounded } from './answer-price.ts'
import type { Budgeting, Spend, Target } from './call.ts'
import { type Environment, forward } from './forward.ts'
import { Failure } from './failure.ts'
import { type Forwarded, refused, type Refused } from './forwarded.ts'
import type { PriceList } from './price-list.ts'

/**
 * Forwards a call that costs money, or whose client, team or organisation has a budget. The call is charged once, however many
 * attempts there are. The charge is refunded if no byte of the call was sent, and nothing else answered it. The ledger counts the
 * charge, so all gateways share the budget.
 */
export async function forwardWithin(
  budget: Budget | 'missing-team' | undefined,
  call: Budgeting,
  target: Target,
  env: Environment,
): Promise<Forwarded> {
  if (budget === 'missing-team') return refused(new Failure('forbidden', MISSING_TEAM))
  const spend = new BudgetCharge(budget, call, target, env)
  call.spend = spend
  let isDelivered = false
  try {
    if (!spend.readsBody || !hasBody(call.request)) {
      const usedUp = await spend.enter(target, undefined)
      if (usedUp !== undefined) return usedUp
    }
    const result = await forward(call, target, env)
    isDelivered = result.kind === 'delivered'
    return result
  } finally {
    spend.end(isDelivered)
  }
}

const MISSING_TEAM = 'the team of the client is in the configuration no more, so nobody can say what the client may use'

/**
 * The charge of one call to the budgets of its client, team and organisation: to all of them in one step, or to none. Money is
 * reserved at first, and settled by the answer that the client gets. The call costs no money if no attempt was sent, or if each was
 * answered by a free status. If the price stays unknown, the reservation stands. The money is counted for the client even without a
 * budget.
 */
class BudgetCharge implements Spend {
  isPending = true
  readonly prices: PriceList | undefined
  readonly #budget: Budget | undefined
  readonly #call: Budgeting
  readonly #env: Environment
  #permit: Permit | undefined
  /** What the call costs, in billionths. Until that is known, what is reserved. */
  #money = 0
  #isKnown = false
  /** How many attempts the upstream may have seen: one that did not reach it costs nothing. */
  #sent = 0
  /** How many attempts were answered by a status that is free. */
  #freeAnswers = 0

  constructor(budget: Budget | undefined, call: Budgeting, { upstream }: Target, env: Environment) {
    this.prices = upstream.prices
    this.#budget = budget
    this.#call = call
    this.#env = env
  }

  get readsBody(): boolean {
    return this.prices?.readsBody === true
  }

  async enter({ client, route, admissionPolicy }: Target, body: Buffer | undefined): Promise<Refused | undefined> {
    this.isPending = false
    const { ledger } = admissionPolicy.queue
    const call = this.#call
    const { prices } = this
    this.#money = prices?.reserveFor({ route, client: client.name, body }, prices.tariffFor(route, body)) ?? 0
    const chargeSet = this.#budget?.chargeSetFor(this.#money)
    if (chargeSet === undefined || chargeSet.limits.length === 0) return undefined
    let grant: Grant
    try {
      grant = await ledger.charge(chargeSet, 1)
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      this.#env.metrics.storeErrors.of({}).increment(call.id)
      const message = 'the quota store can’t be reached, so the call can’t be kept inside the budget of its client'
      return refused(new Failure('store_unavailable', message, { cause: error }))
    }
    call.budgetUsage = grant.usage
    call.budgetUnits = chargeSet.units
    if (grant.granted === 0) {
      this.#warn(grant, ledger)
      return refused(this.#usedUp(grant))
    }
    const permit = new Permit({ ledger, committed: ignore, refunded: ignore, left: ignore }, grant, call.clock.now())
    this.#permit = permit
    // The charge is committed when the response's head is here, however long the body takes.
    call.onHead = () => permit.commit()
    this.#warn(grant, ledger)
    return undefined
  }

  sent(): void {
    this.#sent++
  }

  answered(status: number): void {
    if (this.prices?.isFree(status) === true) this.#freeAnswers++
  }

  settle(money: number): void {
    const { client, route } = this.#call.target!
    if (money > 0) this.prices?.observe(route, client.name, money)
    this.#settle(money)
  }

  #settle(money: number): void {
    if (this.#isKnown) return
    this.#isKnown = true
    this.#money = money
    const permit = this.#permit
    const { limits, units } = permit?.atEnd ?? {}
    if (limits === undefined) return
    permit!.commit()
    permit!.settle(limits.map((limit, i) => bounded(money, limit, units![i]!)))
  }

  /** The call is over. Commits its charge, or refunds it if the call was neither sent nor answered. Counts its money for the client. */
  end(isDelivered: boolean): void {
    using permit = this.#permit
    const { target, id } = this.#call
    if (this.#sent === 0 && !isDelivered) return
    permit?.sent()
    permit?.commit()
    if (this.#sent === this.#freeAnswers) this.#settle(0)
    const { client, admissionPolicy } = target!
    if (this.#money > 0) admissionPolicy.usage.of(client.name).spend(this.#money, this.prices!.unit, id)
  }

  #usedUp(grant: Grant): Failure {
    const { usage, chargeSet, schedule } = grant
    const now = this.#call.clock.now()
    const holder = schedule?.heldBy(1, now)
    const lacks = ({ limit, used }: LimitUsage, i: number): boolean =>
      limit.isEnforced && used + chargeSet.units[i]! > limit.requests
    const scarce = usage.find((one) => one.limit === holder) ?? usage.find(lacks) ?? usage[0]!
    const { limit } = scarce
    const { kind, name } = this.#budget!.levelOf(limit)
    const retryAfterMs = schedule?.waitMs(1, now) ?? limit.windowMs
    const units = chargeSet.units[usage.findIndex((one) => one.limit === limit)]!
    const more = limit.unit === undefined ? '' : `; this call may cost ${amountText(limit, units)}`
    const shortage = shortageOf(scarce, units, grant, this.#call.clock.wall())
    const message = `the ${kind} ${name} ${shortage}${more}; more comes back in ${roughly(retryAfterMs)}`
    return new Failure('share_exceeded', message, { retryAfterMs })
  }

  #warn({ usage }: Grant, ledger: Ledger): void {
    for (let i = 0; i < usage.length; i++) {
      const { limit, used } = usage[i]!
      warnOnce(this.#budget!.levelOf(limit), used, ledger, this.#env, this.#call.id)
    }
  }
}

/** Why a budget has no room for a call of so many units. Units that other gateways lease do not count as used. */
function shortageOf(
  { limit, used, resetMs }: LimitUsage,
  units: number,
  { schedule, isLocal }: Grant,
  wall: number,
): string {
  const { requests, calendar, label, countingToleranceMs } = limit
  const length = calendar === undefined ? label.split(' ', 1)[0]! : `this ${calendar.unit}`
  const budget = `its budget of ${amountText(limit, requests)} in ${length}`
  if (isLocal) return `may spend only a part of ${budget} while the quota store is away`
  if (used >= requests) return `has used ${budget}`
  const setAside = requests - used - (schedule?.limits.find((one) => one.limit === limit)?.free ?? requests)
  const usedOf = `has used ${amountText(limit, used)} of ${budget}`
  if (setAside <= 0 || used + units > requests) return usedOf
  const sinceBeginMs = windowLengthMs(limit, wall + resetMs) - resetMs
  if (calendar !== undefined && sinceBeginMs < countingToleranceMs)
    return `${usedOf}, and may use the rest once the ${calendar.unit} before is surely over`
  return `${usedOf}, and ${amountText(limit, setAside)} are set aside for other gateways`
}

const ignore = (): void => undefined

/** The budgets that were logged as nearly used up, until they recover. They are kept by ledger, so a reload keeps them. */
const WARNED = new WeakMap<Ledger, Set<string>>()
/** A budget has recovered when less is used than this part of the amount at which it is logged. */
const RECOVERED = 0.9

function warnOnce(
  { limit, kind, name, warnAt }: BudgetLimit,
  used: number,
  ledger: Ledger,
  env: Environment,
  id: string,
): void {
  const warned = WARNED.getOrInsertComputed(ledger, () => new Set())
  const from = warnAt * limit.requests
  if (used < from * RECOVERED && warned.size === 0) return
  const key = `${kind}:${name} ${limit.label}`
  if (used < from * RECOVERED) warned.delete(key)
  if (used < from || warned.has(key)) return
  warned.add(key)
  env.metrics.budgetLow.of({ level: kind, name, window: limit.label }).increment(id)
  const [most, spent] = [limit.requests, used].map((units) => amountOf(limit, units))
  const notice = { whose: kind, name, window: limit.label, limit: most, used: spent, isEnforced: limit.isEnforced }
  env.log.logger.warn(
    notice,
    'a budget is nearly used up: see in npx sluice quota --by client who spends it, or raise it',
  )
}
