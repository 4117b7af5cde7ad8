import { inspect } from 'node:util'

/** A text of the configuration that contains references. Relative paths in it start at `folder`. */
export interface Template {
  readonly text: string
  readonly folder: string
}

/**
 * A secret value. It prints as `[redacted]` everywhere; only `reveal()` returns it, and only for the wire. A secret
 * that came from a reference can change while the program runs, so it must be revealed anew for each use.
 */
export class Secret {
  #value: string
  #next: Secret | undefined
  #version = 0
  #listeners: (() => void)[] | undefined
  /** The text with the references that it came from; undefined if the configuration contains it literally. */
  template: Template | undefined
  /** When it expires, in milliseconds since 1970, if that is known. */
  expiresAt: number | undefined
  /** Says why a text can't be its value, without showing the text. Whoever uses the secret sets it. */
  whyNot: (text: string) => string | undefined = () => undefined
  /** Tells the source that an upstream refused the next value; undefined if the source does not care. */
  nextRefused: (() => void) | undefined
  /** Reads its source again; undefined if it has none that can change. */
  lookAgain: (() => Promise<void>) | undefined

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  /** The next value, during a rotation. */
  get next(): Secret | undefined {
    return this.#next
  }

  /** How often the value has changed. */
  get version(): number {
    return this.#version
  }

  /** Sets the value, and the next one with when that expires. Returns whether either has changed. */
  replace(value: string, next?: string, nextExpiresAt?: number): boolean {
    const isSame = value === this.#value && next === this.#next?.reveal()
    if (!isSame) {
      if (value !== this.#value) this.#version++
      this.#value = value
      this.#next = next === undefined ? undefined : new Secret(next)
    }
    if (this.#next !== undefined) this.#next.expiresAt = nextExpiresAt
    if (!isSame) for (const listener of this.#listeners ?? []) listener()
    return !isSame
  }

  onChange(listener: () => void): void {
    ;(this.#listeners ??= []).push(listener)
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [inspect.custom](): string {
    return '[redacted]'
  }
}

/** All secrets in a value, at any depth. */
export function secretsIn(value: unknown): Secret[] {
  if (value instanceof Secret) return [value]
  if (typeof value !== 'object' || value === null) return []
  return Object.values(value).flatMap(secretsIn)
}
