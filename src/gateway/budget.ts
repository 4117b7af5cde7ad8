import { type Grant, type ChargeSet, StoreUnavailableError } from '../ledger/ledger.ts'
import type { Budgeting, Target } from './call.ts'
import { type Environment, forward } from './forward.ts'
import { Failure } from './failure.ts'
import type { Forwarded } from './forwarded.ts'

/**
 * Forwards a call of a client that has a budget of its own. The call is charged once, however many attempts there are. The charge
 * is refunded if the call is refused before its first attempt. The ledger counts it, so all gateways share the budget.
 */
export async function forwardWithin(
  budget: ChargeSet,
  call: Budgeting,
  target: Target,
  env: Environment,
): Promise<Forwarded> {
  const { client, admissionPolicy } = target
  const { ledger } = admissionPolicy.queue
  let grant: Grant
  try {
    grant = await ledger.charge(budget, 1)
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    env.metrics.storeFailed(call.id)
    const message = 'the quota store can’t be reached, so the call can’t be kept inside the budget of its client'
    return { kind: 'refused', failure: new Failure('store_unavailable', message, { cause: error }) }
  }
  call.budgetUsage = grant.usage
  if (grant.granted === 0) {
    const used = grant.usage.find(({ limit, used }) => used >= limit.requests)?.limit ?? budget.limits[0]!
    const message = `the client ${client.name} has used its budget of ${used.requests} requests in ${used.label}`
    const retryAfterMs = grant.schedule?.waitMs(1, call.clock.now()) ?? used.windowMs
    return { kind: 'refused', failure: new Failure('share_exceeded', message, { retryAfterMs }) }
  }
  let isCommitted = false
  const commit = (): void => {
    if (!isCommitted) ledger.commit(grant)
    isCommitted = true
  }
  let isDelivered = false
  try {
    // From the response's head on, the charge counts as of now, however long the body takes.
    call.onHead = commit
    const result = await forward(call, target, env)
    isDelivered = result.kind === 'delivered'
    return result
  } finally {
    if (call.attempts === 0 && !isDelivered && !isCommitted) ledger.refund(grant)
    else commit()
    ledger.leave(grant)
  }
}
