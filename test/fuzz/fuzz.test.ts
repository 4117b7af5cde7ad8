import { expect, it } from 'vitest'
import { runFuzz } from './run-fuzz.ts'

it('takes or refuses whatever it is given: configurations, targets, headers, bodies, bytes on its ports', async () => {
  const { inputs, findings } = await runFuzz(20_260_101, 6_000)
  expect(findings).toEqual([])
  expect(Object.keys(inputs)).toHaveLength(6)
  for (const count of Object.values(inputs)) expect(count).toBeGreaterThanOrEqual(240)
})
