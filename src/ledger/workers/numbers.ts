/** Numbers for objects that the other side knows by them. One that nobody holds any more is forgotten there, and its number free. */
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

  /** `tell` is called where it had none. */
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
