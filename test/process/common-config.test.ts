import { expect, it } from 'vitest'
import { CommonConfig } from '../../src/process/common-config.ts'
import type { Ask, ConfigText, GivenText, WorkerLink } from '../../src/process/worker-link.ts'

it('gives each configuration one generation at all workers, the next one a later one, and so one that they go back to', async () => {
  const given: (readonly [text: string, generation: number])[] = []
  const workerThat = (refuses?: string): WorkerLink => {
    const ask = ({ input }: Pick<Ask, 'input'>): Promise<object> => {
      const { text, generation } = input as GivenText
      given.push([text, generation])
      return Promise.resolve({ result: text === refuses ? 'rejected' : 'applied', problems: [] })
    }
    return { ask } as unknown as WorkerLink
  }
  const [first, second, third] = ['first', 'second', 'third'].map((text) => ({ source: 'test', text })) as [
    ConfigText,
    ConfigText,
    ConfigText,
  ]
  const common = new CommonConfig(first)
  const started = [common.given(first), common.given(first)].map(({ generation }) => generation)
  for (const worker of [workerThat(), workerThat('third')]) await common.join(worker, first)
  expect(await common.offer(second)).toBeUndefined()
  expect(await common.offer(third)).toEqual([])
  started.push(common.given(common.inForce).generation)
  expect(started).toEqual([1, 1, 4])
  expect(given).toEqual([
    ['second', 2],
    ['second', 2],
    ['third', 3],
    ['third', 3],
    ['second', 4],
  ])
})
