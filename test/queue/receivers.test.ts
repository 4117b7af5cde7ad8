import { beforeEach, describe, expect, it } from 'vitest'
import { chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import type { FairScheduler } from '../../src/queue/fair-scheduler.ts'
import { QueuedCall } from '../../src/queue/queued-call.ts'
import { Receivers } from '../../src/queue/receivers.ts'

const limit = limitOf({ id: 'read', class: 'read', requests: 100, windowMs: 1_000 })
const [chargeSet, other] = [chargeSetOf('x/a', [{ limit }]), chargeSetOf('x/a', [{ limit, units: 2 }])]

let waiting: QueuedCall[] = []
/** How often the order of those that wait was made. */
let orders = 0
const state = {
  get waiting() {
    return waiting.length
  },
  scheduler() {
    orders++
    const all = waiting.values().map((queuedCall, i) => ({ queuedCall, position: i + 1 }))
    return { next: () => all } as unknown as FairScheduler
  },
}

function arrive(of = chargeSet): QueuedCall {
  const client = { name: 'bot', weight: 1, share: 0, priority: 'normal' as const }
  const onEnd = (ended: QueuedCall): void => void (waiting = waiting.filter((one) => one !== ended))
  const queuedCall = new QueuedCall(
    { chargeSet: of, client, maxWaitMs: 1_000, priority: 'normal' },
    { because: 'quota', arrivedAt: 0, onEnd },
  )
  queuedCall.ended.catch(() => undefined)
  waiting.push(queuedCall)
  return queuedCall
}

/** Admits a call, or lets its client leave. */
const end = (queuedCall: QueuedCall): void => queuedCall.fail(new Error('over'))

function admitAll(receivers: Receivers): QueuedCall[] {
  const admitted: QueuedCall[] = []
  for (let next = receivers.next(); next !== undefined; next = receivers.next()) {
    admitted.push(next)
    end(next)
  }
  return admitted
}

describe('those who get what was granted', () => {
  beforeEach(() => {
    waiting = []
    orders = 0
  })

  it('are the chosen calls, and then those that wait, in an order that is made once', () => {
    const [first, second, ...rest] = [arrive(), arrive(), arrive(), arrive(), arrive()]
    const receivers = new Receivers(state, chargeSet, [first, second])
    end(first)
    expect(admitAll(receivers)).toEqual([second, ...rest])
    expect(orders).toBe(1)
  })

  it('are ordered anew after a pause, in which calls may have left', () => {
    const [chosen, left, stays] = [arrive(), arrive(), arrive()]
    const receivers = new Receivers(state, chargeSet, [chosen])
    end(chosen)
    expect(receivers.next()).toBe(left)
    end(left)
    receivers.forgetOrder()
    expect(admitAll(receivers)).toEqual([stays])
    expect(orders).toBe(2)
  })

  it('are none of another charge set, and no order is made where nobody waits', () => {
    const chosen = arrive()
    const receivers = new Receivers(state, chargeSet, [chosen])
    end(chosen)
    expect(receivers.next()).toBeUndefined()
    expect(orders).toBe(0)
    arrive(other)
    expect(receivers.next()).toBeUndefined()
  })

  it('are not a call that a mistake left in its queue', () => {
    const [chosen, broken] = [arrive(), arrive()]
    const receivers = new Receivers(state, chargeSet, [chosen])
    end(chosen)
    end(broken)
    waiting = [broken]
    expect(receivers.next()).toBeUndefined()
  })
})
