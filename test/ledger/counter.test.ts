import { describe, expect, it } from 'vitest'
import { Counter } from '../../src/ledger/counter.ts'
import { BUCKETS, limitOf } from '../../src/ledger/limit.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { worstCount } from '../support/worst-count.ts'

function counterOf(windowMs: number, requests = 1_000): Counter {
  return new Counter(limitOf({ id: 'x', class: 'x', requests, windowMs }))
}

/** As if a call was sent and answered at once. */
function addTo(counter: Counter, at: number, units: number): void {
  counter.addCommitted(at, at, units, 0)
}

describe('a counter', () => {
  it('is empty when all has left, also of more money than numbers hold exactly', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seededRandom(seed)
      const counter = counterOf(60_000, 4e15)
      let now = 0
      for (let i = 0; i < 9; i++) {
        now += 2_000
        addTo(counter, now, 4e15 - Math.floor(random() * 1e6))
      }
      for (let i = 0; i < 80; i++) expect(counter.used((now += 1_000))).toBeGreaterThanOrEqual(0)
      expect(counter.used(now), String(seed)).toBe(0)
    }
  })

  it('never lets a greedy client have more than the limit in any trailing window', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seededRandom(seed)
      const windowMs = 100 * 10 ** Math.floor(random() * 4)
      const limit = 1 + Math.floor(random() * 50)
      const counter = counterOf(windowMs)
      const granted: number[] = []
      let now = random() * 1e12
      while (granted.length < limit * 6) {
        now += random() < 0.3 ? 0 : (random() ** 4 * windowMs) / 4
        if (counter.used(now) >= limit) continue
        addTo(counter, now, 1)
        granted.push(now)
      }
      expect(worstCount(granted, windowMs), `seed ${seed}`).toBeLessThanOrEqual(limit)
    }
  })

  it('gives back a charge at most one bucket after it has left the window', () => {
    const random = seededRandom(7)
    const counter = counterOf(60_000)
    for (let i = 0; i < 500; i++) {
      const at = 1e9 + i * 130_000 + random() * 60_000
      addTo(counter, at, 3)
      expect(counter.used(at + 60_000)).toBe(3)
      expect(counter.used(at + 60_000 + 60_000 / BUCKETS)).toBe(0)
    }
  })

  it('says when the oldest charge leaves, and is right about it', () => {
    const counter = counterOf(1_000)
    addTo(counter, 50_003, 2)
    addTo(counter, 50_500, 1)
    const resetMs = counter.resetMs(50_600)
    expect(counter.used(50_600 + resetMs - 1)).toBe(3)
    expect(counter.used(50_600 + resetMs)).toBe(1)
  })

  it('takes back what still counts, and nothing of what does not', () => {
    const counter = counterOf(1_000)
    addTo(counter, 50_000, 2)
    counter.refund(50_100, 50_000 - counter.limit.inFlightLeaseMs, 1)
    expect(counter.used(50_100)).toBe(1)
    counter.refund(52_000, 50_000 - counter.limit.inFlightLeaseMs, 1)
    expect(counter.used(52_000)).toBe(0)
    addTo(counter, 52_000, 1)
    counter.refund(52_000, 50_000 - counter.limit.inFlightLeaseMs, 1)
    expect(counter.used(52_000)).toBe(1)
  })

  it('knows of no others once the whole limit may be used again', () => {
    const counter = counterOf(60_000, 100)
    counter.refuse(1_000, 500, 1)
    expect(counter.others(200_000)?.units).toBeGreaterThan(0)
    expect(counter.releases(241_000)).toEqual([])
    expect(counter.others(241_000)).toBeUndefined()
  })

  it('stands still when its clock is set back', () => {
    const counter = counterOf(1_000)
    addTo(counter, 50_000, 5)
    expect(counter.used(10_000)).toBe(5)
    addTo(counter, 10_000, 1)
    expect(counter.used(50_999)).toBe(6)
  })

  it('of calls in flight goes on when its clock was far ahead and is set right', () => {
    const counter = new Counter(limitOf({ id: 'x', class: 'x', requests: 10, kind: 'concurrent' }))
    const { inFlightLeaseMs } = counter.limit
    counter.charge(1e9, 1e9, 4)
    const now = 1e9 - 60_000
    expect(counter.used(now)).toBe(4)
    counter.charge(now, now, 1)
    counter.refund(now + 10, now, 1)
    expect(counter.used(now + 10)).toBe(4)
    // Those before count until no renewal of them can come any more.
    expect(counter.used(now + inFlightLeaseMs)).toBe(4)
    expect(counter.used(now + inFlightLeaseMs + 2 * counter.limit.bucketMs)).toBe(0)
  })

  it('can be built again from what it tells of itself', () => {
    const random = seededRandom(3)
    const counter = counterOf(5_000)
    let now = 1e7
    for (let i = 0; i < 300; i++) addTo(counter, (now += random() * 40), 1)
    const copy = counterOf(5_000)
    for (const { bucket, units } of counter.charges(now)) copy.restore(now, bucket, units)
    for (let later = now; later < now + 6_000; later += 37) expect(copy.used(later)).toBe(counter.used(later))
  })
})
