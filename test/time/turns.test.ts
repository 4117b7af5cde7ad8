import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/time/clock.ts'
import { endOfTurn, nextTurn } from '../../src/time/turns.ts'

describe('the end of a turn', () => {
  it('comes for all who ask in it, in the order in which they did, after what else is ready', async () => {
    const order: string[] = []
    const step = async (name: string): Promise<void> => {
      await endOfTurn(systemClock)
      order.push(name)
    }
    const all = [step('a'), step('b'), Promise.resolve().then(() => step('c'))]
    process.nextTick(() => order.push('ready'))
    await Promise.all(all)
    expect(order).toEqual(['ready', 'a', 'b', 'c'])
  })

  it('is another one in the next turn', async () => {
    const first = endOfTurn(systemClock)
    expect(endOfTurn(systemClock)).toBe(first)
    await first
    expect(endOfTurn(systemClock)).not.toBe(first)
    await nextTurn(systemClock)
  })
})
