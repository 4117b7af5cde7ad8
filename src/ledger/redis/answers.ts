/** Answers are noted at least NOTE_EVERY_MS apart. Notes that are kept for long are at least AGE_BETWEEN_NOTES of their age apart. */
const NOTE_EVERY_MS = 100
const AGE_BETWEEN_NOTES = 1 / 100
/** A note is kept for so long: Redis may come back with a snapshot, and by default it makes one an hour. */
export const NOTED_MS = 4 * 3_600_000
/** Notes are thinned when so many new ones have come. These take some kilobytes of each account. */
const NOTES_BETWEEN_THINNING = 100

/** The numbers of this gateway's calls of the script, by which it notices what Redis has lost. */
export class CallNumbers {
  /** The number of the last call sent, and of the last one answered. */
  sent = 0
  #answered = 0
  /** How many calls Redis remembered when it first answered with a wrong number. */
  #remembered: number | undefined
  /**
   * When Redis answered and had everything, by its clock, oldest first; and the numbers of these answers. Each account has
   * hundreds: as objects they would take much more room.
   */
  readonly #times: number[] = []
  readonly #numbers: number[] = []
  #thinnedTo = 0

  /** Redis answered the call of that number at its time `at`. `hasAll`: it has been told everything until then. */
  note(number: number, at: number, hasAll: boolean): void {
    this.#answered = Math.max(this.#answered, number)
    if (!hasAll) return
    const last = this.#times.at(-1)
    if (last !== undefined && at - last < NOTE_EVERY_MS) return
    this.#times.push(at)
    this.#numbers.push(number)
    if (this.#times.length >= this.#thinnedTo + NOTES_BETWEEN_THINNING) this.#thin(at)
  }

  #thin(now: number): void {
    let before = -Infinity
    this.#keep((at) => {
      const ageMs = now - at
      if (ageMs > NOTED_MS || at - before < ageMs * AGE_BETWEEN_NOTES) return false
      before = at
      return true
    })
    this.#thinnedTo = this.#times.length
  }

  #keep(isKept: (at: number, number: number) => boolean): void {
    let kept = 0
    for (const [i, at] of this.#times.entries()) {
      const number = this.#numbers[i]!
      if (!isKept(at, number)) continue
      this.#times[kept] = at
      this.#numbers[kept] = number
      kept++
    }
    this.#times.length = this.#numbers.length = kept
  }

  /** An answer had a wrong number: before that call, Redis had run `remembered` calls of this gateway. */
  misses(remembered: number): void {
    this.#remembered ??= remembered
  }

  /**
   * Redis answered a probe, which would be the call `number` if it were counted. Returns since when Redis has lost writes, by its
   * clock; undefined if it has lost none.
   */
  reconnect(number: number): { readonly since: number } | undefined {
    const remembered = this.#remembered ?? number - 1
    const since = this.#times[this.#numbers.findLastIndex((noted) => noted <= remembered)] ?? -Infinity
    const hasLost = remembered < this.#answered
    this.#remembered = undefined
    this.#keep((_, noted) => noted <= remembered)
    this.#thinnedTo = Math.min(this.#thinnedTo, this.#times.length)
    this.#answered = number - 1
    // The first number is only for a gateway that has never made a call.
    this.sent = Math.max(1, number - 1)
    return hasLost ? { since } : undefined
  }
}

/** How fast the clocks of two machines may drift apart: ten times what they do. */
const DRIFT = 1 / 1_000

/** Redis's clock, as far as the times of its answers tell. All values are milliseconds. */
export class RedisClock {
  /** Redis's time minus the gateway's lies between these two. */
  #leastOffset = 0
  #mostOffset = 0
  #setAt = 0
  /** The most that these two have been apart. */
  #uncertainMs = 0
  isKnown = false

  /** Redis answered at its time `at` to what was sent and received at these times of our clock. Returns whether that is its first answer. */
  set(at: number, sentAt: number, receivedAt: number): boolean {
    this.#setAt = receivedAt
    this.#leastOffset = at - receivedAt
    this.#mostOffset = at - sentAt
    this.#uncertainMs = Math.max(this.#uncertainMs, receivedAt - sentAt)
    const isFirst = !this.isKnown
    this.isKnown = true
    return isFirst
  }

  earliest(now: number): number {
    return now + this.#leastOffset
  }

  latest(now: number): number {
    return now + this.#mostOffset + (now - this.#setAt) * DRIFT
  }

  /** A time that Redis's clock has surely not reached yet. */
  surelyPast(now: number): number {
    return now + this.#mostOffset + this.#uncertainMs
  }

  /** By how much `earliest` may be too early. */
  get driftMs(): number {
    return this.#mostOffset - this.#leastOffset
  }
}
