import { inspect } from 'node:util'

/** A text with references in it, as a configuration has it; relative paths in it are looked up from `folder`. */
export interface Template {
  readonly text: string
  readonly folder: string
}

/**
 * A value that prints as `[redacted]` wherever it is printed: only `reveal()` gives it away, and only to the wire. One that
 * came from a reference can be replaced while the program runs, so whoever needs it asks for it each time.
 */
export class Secret {
  #value: string
  #next: Secret | undefined
  #version = 0
  #listeners: (() => void)[] | undefined
  /** Where it came from, if not from the configuration itself. */
  template: Template | undefined
  /** When it stops being valid, in milliseconds since 1970, if that is known. */
  expiresAt: number | undefined
  /** Why a text can't be its value; whoever uses it knows. Never shows the text. */
  whyNot: (text: string) => string | undefined = () => undefined
  /** Tells where it came from that an upstream refused the value that is to follow, if anybody wants to know. */
  nextRefused: (() => void) | undefined
  /** Looks up anew what it came from, if that can be done. */
  lookAgain: (() => Promise<void>) | undefined

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  /** The value that is to follow, while two are alive. */
  get next(): Secret | undefined {
    return this.#next
  }

  /** How often the value has changed. */
  get version(): number {
    return this.#version
  }

  /** Takes new values; returns whether that changed anything. */
  replace(value: string, next?: string): boolean {
    const isSame = value === this.#value && next === this.#next?.reveal()
    if (isSame) return false
    if (value !== this.#value) this.#version++
    this.#value = value
    this.#next = next === undefined ? undefined : new Secret(next)
    for (const listener of this.#listeners ?? []) listener()
    return true
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

/** Every secret in a value, however deep. */
export function secretsIn(value: unknown): Secret[] {
  if (value instanceof Secret) return [value]
  if (typeof value !== 'object' || value === null) return []
  return Object.values(value).flatMap(secretsIn)
}
