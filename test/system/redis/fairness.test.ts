import { expect, inject, it } from 'vitest'
import { contend, describeContended } from '../../support/contention.ts'

/** `npm run bench:queue -- --processes` runs it in full. */
const WINDOWS = process.env['SLUICE_PROOF'] === 'full' ? 20 : 12

it('five clients of three gateway processes get their due, the greedy one too', async () => {
  // A commandTimeout that is longer than by default, because on a busy machine Redis itself may be late.
  const store = { url: inject('redisUrl'), prefix: `fair-${process.pid}`, commandTimeout: '2s' }
  const contended = await contend(store, WINDOWS, (parts) => Object.values(parts).every(isDue))
  console.log(describeContended(contended))
  expect(contended.throttled).toBe(0)
  expect(contended.worst).toBeLessThanOrEqual(contended.limit)
  expect(Object.keys(contended.statuses)).toEqual(['200'])
  for (const [client, part] of Object.entries(contended.parts)) {
    expect(isDue(part), `${client}: ${part} of its due`).toBe(true)
  }
})

function isDue(part: number): boolean {
  return Math.abs(part - 1) < 0.05
}
