/**
 * Numbers by which another process knows objects of this one. Once an object is garbage, `forget` is called to tell that process, and the number
 * is used again.
 */
export class Numbers<T extends object> {
  readonly #byObject = new WeakMap<T, number>()
  readonly #freed: FinalizationRegistry<number>
  readonly #free: number[] = []
  #next = 0

  constructor(forget: (number: number) => void) {
    this.#freed = new FinalizationRegistry((number) => {
      forget(number)
      this.#free.push(number)
    })
  }

  /** The object's number. If it had none, `tell` is called with the new one. */
  of(object: T, tell: (number: number) => void): number {
    const known = this.#byObject.get(object)
    if (known !== undefined) return known
    const number = this.#free.pop() ?? this.#next++
    this.#byObject.set(object, number)
    this.#freed.register(object, number)
    tell(number)
    return number
  }
}
