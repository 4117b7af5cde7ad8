/** What is under way, for whoever may stop only when it is over. */
export class UnderWay {
  #all: Promise<unknown> = Promise.resolve()

  add<T>(one: Promise<T>): Promise<T> {
    this.#all = Promise.allSettled([this.#all, one])
    return one
  }

  /** Resolves when all of it is over, however it ended. */
  over(): Promise<unknown> {
    return this.#all
  }
}
