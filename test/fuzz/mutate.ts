import type { Random } from '../../src/time/clock.ts'

/** Makes inputs that are nearly right, which go further than ones that are not right at all. */
export class Mutator {
  readonly #random: Random

  constructor(random: Random) {
    this.#random = random
  }

  below(count: number): number {
    return Math.floor(this.#random() * count)
  }

  oneOf<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!
  }

  /** One of `seeds` with up to five changes; pieces of others, and what `dictionary` has, are put in. */
  text(seeds: readonly string[], dictionary: readonly string[]): string {
    let text = this.oneOf(seeds)
    for (let left = this.below(6); left > 0; left--) text = this.#change(text, seeds, dictionary)
    return text
  }

  #change(text: string, seeds: readonly string[], dictionary: readonly string[]): string {
    const at = this.below(text.length + 1)
    const end = at + this.below(Math.min(24, text.length - at + 1))
    const [before, middle, after] = [text.slice(0, at), text.slice(at, end), text.slice(end)]
    switch (this.below(7)) {
      case 0:
        return before + after
      case 1:
        return before + middle + middle + after
      case 2:
        return before + String.fromCharCode(this.below(this.below(20) === 0 ? 65_536 : 256)) + after
      case 3:
        return before + this.oneOf(dictionary) + after
      case 4: {
        const other = this.oneOf(seeds)
        return before + other.slice(this.below(other.length + 1)).slice(0, 200)
      }
      case 5:
        return before + this.oneOf(dictionary) + middle + after
      default:
        return before + middle.repeat(1 + this.below(40)) + after
    }
  }
}
