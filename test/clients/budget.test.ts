import { expect, it } from 'vitest'
import { type Budget, Budgets } from '../../src/clients/budget.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('knows its limits in an answer of the ledger, also where a reload has made them anew', () => {
  const budgets = new Budgets({ teams: {}, organisations: {} })
  const [old, next] = [0, 1].map(() => budgets.of('bot', [{ requests: 100, window: 60_000 }], undefined) as Budget)
  const ledger = new MemoryLedger(new SimulatedClock())
  void ledger.charge(next!.chargeSetFor(0), 1)
  const { usage } = ledger.charge(old!.chargeSetFor(0), 1)
  expect(old!.levelOf(usage[0]!.limit)).toMatchObject({ kind: 'client', name: 'bot' })
})
