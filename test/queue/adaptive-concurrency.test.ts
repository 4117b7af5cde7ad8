import { describe, expect, it } from 'vitest'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { Random } from '../../src/time/clock.ts'
import { seededRandom } from '../support/seeded-random.ts'

/** An upstream with so many workers, and a queue before them of any length. */
interface Upstream {
  workers: number
  /** Mean time of an answer, in milliseconds. */
  workMs: number
  /** Above so many calls at once it refuses them, at once. */
  most: number
}

interface Outcome {
  readonly answered: number
  readonly refused: number
  readonly medianMs: number
  readonly limit: number
}

const BOUNDS = { min: 2, max: 200 }

/** Callers without end call an upstream under a capacity, in virtual time. */
class Saturation {
  readonly capacity: ClassCapacity
  readonly #random: Random
  readonly #upstream: Upstream
  #now = 0
  #queue: { sentAt: number }[] = []
  #events: { at: number; end: () => void }[] = []
  #busy = 0

  constructor(upstream: Upstream, concurrency: number | typeof BOUNDS, seed: number) {
    this.#upstream = upstream
    this.#random = seededRandom(seed)
    this.capacity = new ClassCapacity([new QueueCapacity(Infinity, 'calls')], { concurrency })
  }

  run(forMs: number): Outcome {
    const until = this.#now + forMs
    const took: number[] = []
    let refused = 0
    const end = (sentAt: number, isRefusal: boolean): void => {
      if (isRefusal) refused++
      else took.push(this.#now - sentAt)
      this.capacity.answered(this.#now - sentAt, isRefusal)
      this.capacity.release(1)
    }
    while (this.#now < until) {
      while (this.capacity.free > 0 && this.capacity.inFlight < 1_000) {
        this.capacity.inFlight++
        const sentAt = this.#now
        if (this.#busy + this.#queue.length >= this.#upstream.most) this.#in(1, () => end(sentAt, true))
        else this.#queue.push({ sentAt })
      }
      this.#work((sentAt) => end(sentAt, false))
      this.#events.sort((a, b) => a.at - b.at)
      const event = this.#events.shift()!
      this.#now = event.at
      event.end()
    }
    const medianMs = took.toSorted((a, b) => a - b)[took.length >> 1]!
    return { answered: took.length, refused, medianMs, limit: this.capacity.adapted ?? Infinity }
  }

  #work(end: (sentAt: number) => void): void {
    while (this.#busy < this.#upstream.workers && this.#queue.length > 0) {
      const { sentAt } = this.#queue.shift()!
      this.#busy++
      this.#in(this.#upstream.workMs * (0.5 + this.#random()), () => {
        this.#busy--
        end(sentAt)
      })
    }
  }

  #in(delayMs: number, end: () => void): void {
    this.#events.push({ at: this.#now + delayMs, end })
  }
}

describe.each([1, 2, 3])('calls under a concurrency that is adapted, with seed %i', (seed) => {
  const upstream = (): Upstream => ({ workers: 10, workMs: 50, most: Infinity })

  it('use all that the upstream can do, and do not wait there', () => {
    const fixed = new Saturation(upstream(), 200, seed).run(60_000)
    const adapted = new Saturation(upstream(), BOUNDS, seed)
    adapted.run(10_000)
    const outcome = adapted.run(60_000)
    console.log(`fixed: ${JSON.stringify(fixed)}, adapted: ${JSON.stringify(outcome)}`)
    expect(outcome.answered).toBeGreaterThan(0.95 * 10 * (60_000 / 50))
    // 200 at once wait for a second.
    expect(fixed.medianMs).toBeGreaterThan(900)
    expect(outcome.medianMs).toBeLessThan(150)
  })

  it('are fewer when the upstream slows down, and more when it recovers', () => {
    const it = upstream()
    const adapted = new Saturation(it, BOUNDS, seed)
    const before = adapted.run(30_000).limit
    it.workers = 3
    const slow = adapted.run(60_000)
    it.workers = 10
    const after = adapted.run(60_000)
    console.log(JSON.stringify({ before, slow, after }))
    expect(slow.limit).toBeLessThan(before)
    expect(slow.answered).toBeGreaterThan(0.9 * 3 * (60_000 / 50))
    expect(after.limit).toBeGreaterThan(slow.limit)
    expect(after.answered).toBeGreaterThan(0.9 * 10 * (60_000 / 50))
  })

  it('find what is usual for an upstream whose work takes longer from now on', () => {
    const it = upstream()
    const adapted = new Saturation(it, BOUNDS, seed)
    adapted.run(30_000)
    it.workMs = 400
    adapted.run(120_000)
    const outcome = adapted.run(120_000)
    console.log(JSON.stringify(outcome))
    expect(outcome.answered).toBeGreaterThan(0.9 * 10 * (120_000 / 400))
  })

  it('stay below what the upstream refuses, but for few', () => {
    const adapted = new Saturation({ workers: 100, workMs: 50, most: 40 }, BOUNDS, seed)
    adapted.run(10_000)
    const outcome = adapted.run(60_000)
    console.log(JSON.stringify(outcome))
    expect(outcome.refused / (outcome.refused + outcome.answered)).toBeLessThan(0.05)
    expect(outcome.answered).toBeGreaterThan(0.6 * 40 * (60_000 / 50))
  })

  it('become as few as may be when all are refused', () => {
    const adapted = new Saturation({ workers: 10, workMs: 50, most: Infinity }, BOUNDS, seed)
    adapted.run(10_000)
    for (let i = 0; i < 500; i++) adapted.capacity.answered(1, true)
    expect(adapted.capacity.adapted).toBe(2)
  })

  it('are never fewer or more than the bounds', () => {
    const random = seededRandom(seed)
    const capacity = new ClassCapacity([new QueueCapacity(1, 'calls')], { concurrency: { min: 3, max: 9 } })
    for (let i = 0; i < 10_000; i++) {
      capacity.inFlight = Math.floor(random() * 12)
      capacity.answered(random() * 100, random() < 0.1)
      expect(capacity.adapted).toBeGreaterThanOrEqual(3)
      expect(capacity.adapted).toBeLessThanOrEqual(9)
    }
  })
})
