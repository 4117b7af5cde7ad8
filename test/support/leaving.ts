import { Cancellation, type Subscription } from '../../src/time/cancellation.ts'

/** For a call that may leave while it waits: `onWait` is called when its wait begins, and what it returns at the end of that. */
export class Leaving extends Cancellation {
  readonly #onWait: (leave: () => void) => (() => void) | undefined

  constructor(onWait: (leave: () => void) => (() => void) | undefined) {
    super()
    this.#onWait = onWait
  }

  override subscribe(leave: () => void): Subscription {
    const onEnd = this.#onWait(leave)
    const subscription = super.subscribe(leave)
    return {
      [Symbol.dispose]() {
        subscription[Symbol.dispose]()
        onEnd?.()
      },
    }
  }
}
