import { expect, it } from 'vitest'
import { chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'

it('a charge set may have more limits than a function takes arguments, such as one for each client', () => {
  const limit = limitOf({ id: 'read', class: 'read', requests: 1, windowMs: 1_000 })
  const charges = Array.from({ length: 300_000 }, () => ({ limit }))
  expect(chargeSetOf('harness/prod', charges)).toMatchObject({ renewMs: limit.renewMs })
})
