import { expect, it } from 'vitest'
import { CallNumbers } from '../../../src/ledger/redis/answers.ts'

it('a gateway that has told Redis nothing has lost nothing, though no call came between two of its probes', () => {
  const numbers = new CallNumbers()
  expect(numbers.reconnect(1)).toBeUndefined()
  expect(numbers.reconnect(1)).toBeUndefined()
  // The next call has the number 2.
  expect(numbers.sent).toBe(1)
  numbers.note(++numbers.sent, 1_000, true)
  expect(numbers.reconnect(3)).toBeUndefined()
  expect(numbers.reconnect(1)).toEqual({ since: -Infinity })
})
