import { onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { type Failure, isFailure } from '../../src/gateway/failure.ts'
import { type Identity, identify } from '../../src/gateway/identify.ts'
import { buildSnapshot, closeSnapshot } from '../../src/gateway/snapshot.ts'
import type { Target } from '../../src/gateway/call.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import type { Permit } from '../../src/queue/permit.ts'
import { Usage } from '../../src/usage/usage.ts'
import { SimulatedClock } from './simulated-clock.ts'

export interface Sent {
  /** Set once it was admitted. */
  permit: Permit | undefined
  readonly refusal: Failure | undefined
  readonly target: Target | undefined
}

interface SendOptions {
  readonly headers?: Record<string, string>
  readonly account?: string
  /** Stays in flight, instead of being answered at once. */
  readonly isOpen?: boolean
}

/** A gateway without sockets: calls to the upstream `it` are identified and admitted, under a simulated clock. */
export class Admissions {
  // A full hour, and with it a full minute and so on.
  readonly clock = new SimulatedClock(1_700_002_800_000)
  readonly ledger = new MemoryLedger(this.clock)
  readonly metrics = new Metrics()
  readonly snapshot

  constructor(upstream: object, rest: object = {}) {
    const accounts = { main: { credential: { value: 'secret' } } }
    const queue = { maxWait: '24h', maxWaiting: 100_000 }
    this.snapshot = buildSnapshot(
      checkConfig({ upstreams: { it: { accounts, queue, ...upstream } }, ...rest }, 'test'),
      {
        clock: this.clock,
        random: Math.random,
        ledger: this.ledger,
        metrics: this.metrics,
        usage: new Usage({ metrics: this.metrics, clock: this.clock }),
        onBreakerChange: () => undefined,
      },
    )
    onTestFinished(() => closeSnapshot(this.snapshot))
  }

  target(method: string, path: string, { headers = {}, account }: SendOptions = {}): Target | Failure {
    const identity: Identity = { client: undefined, upstream: undefined, route: undefined, prefix: '', path: '' }
    const all = account === undefined ? headers : { ...headers, 'x-sluice-account': account }
    return identify(this.snapshot, { method, url: `/it${path}`, headers: all, connection: {} }, identity)
  }

  /** Sends a call as soon as it may be, and has it answered at once. */
  send(method: string, path: string, options: SendOptions = {}): Sent {
    const target = this.target(method, path, options)
    if (isFailure(target)) return { permit: undefined, refusal: target, target: undefined }
    const sent: Sent = { permit: undefined, refusal: undefined, target }
    const { queue, chargeSet } = target.admissionPolicy
    const entered = queue.enter({
      chargeSet,
      maxWaitMs: target.requestOptions.maxWaitMs,
      client: target.client,
      priority: target.requestOptions.priority,
    })
    void Promise.resolve(entered).then((admission) => {
      if (admission.kind !== 'admitted') throw new Error(`not admitted but ${admission.kind}`)
      sent.permit = admission.permit
      if (options.isOpen === true) return
      admission.permit.commit()
      admission.permit.leave()
    })
    return sent
  }

  /** How many of so many calls are admitted at once. */
  async countAdmitted(calls: number, method: string, path: string, options: SendOptions = {}): Promise<number> {
    const sent = Array.from({ length: calls }, () => this.send(method, path, options))
    await this.clock.advance(0)
    return sent.filter(({ permit }) => permit !== undefined).length
  }
}
