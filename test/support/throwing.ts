import { onTestFinished } from 'vitest'

/** What a step throws that was told to. */
export class Mistake extends Error {}

/**
 * Makes the steps of a call throw, one at a time: every call of a method, or use of a getter, of the classes that are watched is a
 * step. They are numbered in the order in which a run comes to them.
 */
export class Steps {
  #isOn = false
  #count = 0
  #throwAt = -1
  readonly #names: string[] = []

  /** Watches a class, but not the methods named. */
  watch({ prototype }: { prototype: object; name: string }, ...except: string[]): void {
    this.watchObject(prototype, prototype.constructor.name, Object.getOwnPropertyNames(prototype), except)
  }

  watchObject(owner: object, name: string, keys: readonly string[], except: readonly string[] = []): void {
    for (const key of keys) {
      if (key === 'constructor' || except.includes(key)) continue
      const before = Object.getOwnPropertyDescriptor(owner, key)
      const descriptor = before ?? { value: Reflect.get(owner, key) as unknown, configurable: true, writable: true }
      const step = `${name}.${key}`
      const watched = (original: Function) => {
        const { reach } = this
        return function (this: unknown, ...args: unknown[]): unknown {
          reach(step)
          return Reflect.apply(original, this, args)
        }
      }
      if (typeof descriptor.value === 'function') descriptor.value = watched(descriptor.value as Function)
      else if (descriptor.get !== undefined) descriptor.get = watched(descriptor.get)
      else continue
      Object.defineProperty(owner, key, descriptor)
      onTestFinished(() => {
        if (before === undefined) Reflect.deleteProperty(owner, key)
        else Object.defineProperty(owner, key, before)
      })
    }
  }

  /** Runs something in which the step of that number throws. Returns its name, or undefined if there was none. */
  async run(throwAt: number, run: () => Promise<void>): Promise<string | undefined> {
    this.#count = 0
    this.#names.length = 0
    this.#throwAt = throwAt
    this.#isOn = true
    try {
      await run()
    } finally {
      this.#isOn = false
    }
    return this.#names[throwAt]
  }

  readonly reach = (step: string): void => {
    if (!this.#isOn) return
    this.#names.push(step)
    if (this.#count++ === this.#throwAt) throw new Mistake(step)
  }
}
