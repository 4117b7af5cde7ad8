import type { Call } from './call.ts'

/** Ends the sleep of calls between their attempts, now and from now on: the gateway stops, and they get their answers. */
export class LastCall {
  isOver = false
  readonly #asleep = new Set<Call>()

  /** Sleeps no longer than the client waits, and not beyond the last call. */
  async sleep(call: Call, delayMs: number): Promise<void> {
    if (this.isOver) return
    this.#asleep.add(call)
    try {
      await call.sleep(delayMs)
    } finally {
      this.#asleep.delete(call)
    }
  }

  end(): void {
    this.isOver = true
    for (const call of this.#asleep) call.wake()
  }
}
