/** Tracks work that is under way, for code that must wait for its end before it stops. */
export class UnderWay {
  #all: Promise<unknown> = Promise.resolve()

  add<T>(one: Promise<T>): Promise<T> {
    this.#all = Promise.allSettled([this.#all, one])
    return one
  }

  /** Resolves when all work that was added so far has ended, whether it succeeded or failed. */
  over(): Promise<unknown> {
    return this.#all
  }
}
