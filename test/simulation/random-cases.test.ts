import { expect, it } from 'vitest'
import { range, runCases } from './cases.ts'

// Half of the random cases; the others run beside these, in guarantee.test.ts.
it('no window has more than its limit in any of a thousand cases that keep the assumptions', async () => {
  const { broken, cases, worst } = await runCases('random', range(1, 1_000))
  expect(broken).toEqual([])
  expect(cases).toBe(1_000)
  expect(worst).toBe('100.00 %')
}, 600_000)
