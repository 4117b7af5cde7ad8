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

  it('comes in several turns for many who ask at once, in their order', async () => {
    let turn = 0
    let isOver = false
    const count = (): void => {
      turn++
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    const turns: number[] = []
    const step = async (): Promise<void> => {
      await endOfTurn(systemClock)
      turns.push(turn)
    }
    await Promise.all(Array.from({ length: 300 }, step))
    isOver = true
    expect(turns).toEqual(turns.toSorted((a, b) => a - b))
    const inTurn = Map.groupBy(turns, (one) => one)
    expect([...inTurn.values()].map((those) => those.length)).toEqual([128, 128, 44])
  })

  it('is another one in the next turn', async () => {
    const first = endOfTurn(systemClock)
    expect(endOfTurn(systemClock)).toBe(first)
    await first
    expect(endOfTurn(systemClock)).not.toBe(first)
    await nextTurn(systemClock)
  })
})
