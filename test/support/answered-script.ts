import { RedisScript } from '../../src/ledger/redis/script.ts'
import type { SimulatedClock } from './simulated-clock.ts'

/** Each tick of a partition comes at the end of a step. */
const STEP_MS = 10

/** The script in a Redis that answers before time passes, however busy the machine is. */
export class AnsweredScript extends RedisScript {
  #open = 0

  override run(...call: Parameters<RedisScript['run']>): ReturnType<RedisScript['run']> {
    return this.#awaited(super.run(...call))
  }

  override claimFormat(...claim: Parameters<RedisScript['claimFormat']>): ReturnType<RedisScript['claimFormat']> {
    return this.#awaited(super.claimFormat(...claim))
  }

  #awaited<T>(answer: Promise<T>): Promise<T> {
    this.#open++
    return answer.finally(() => this.#open--)
  }

  /** Lets `ms` pass. What goes to Redis one after the other is answered before more time passes. */
  async pass(clock: SimulatedClock, ms: number, stepMs = STEP_MS): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      await clock.advance(stepMs)
      while (this.#open > 0) await clock.advance(0)
    }
  }
}
