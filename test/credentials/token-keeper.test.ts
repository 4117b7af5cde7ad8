import { expect, it } from 'vitest'
import { type Token, TokenKeeper } from '../../src/credentials/token-keeper.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const HOUR = 3_600_000

/** A keeper whose token requests the test answers. */
function setUp() {
  const clock = new SimulatedClock()
  const requests: PromiseWithResolvers<Token>[] = []
  const keeper = new TokenKeeper({
    clock,
    random: () => 0,
    obtain: () => {
      const request = Promise.withResolvers<Token>()
      requests.push(request)
      return request.promise
    },
    onRenewal: () => undefined,
  })
  const issue = (text: string): void =>
    requests.at(-1)!.resolve({ text, expiresAt: clock.now() + HOUR, renewAt: clock.now() + HOUR / 2 })
  const fail = (): void => requests.at(-1)!.reject(new Error('refused'))
  return { keeper, requests, issue, fail }
}

it('is renewed again where the secret changes while a token is requested with the old one', async () => {
  const { keeper, requests, issue } = setUp()
  const first = keeper.ready()
  keeper.renewSoon()
  issue('by the old secret')
  await first
  expect(keeper.text).toBe('by the old secret')
  // The call need not wait: the token is valid.
  expect(keeper.ready()).toBeUndefined()
  expect(requests).toHaveLength(2)
  issue('by the new secret')
  await expect.poll(() => keeper.text).toBe('by the new secret')
  expect(keeper.ready()).toBeUndefined()
  expect(requests).toHaveLength(2)
})

it('is requested at once with a new secret, although a request with the old one has just failed', async () => {
  const { keeper, requests, issue, fail } = setUp()
  const first = keeper.ready()
  keeper.renewSoon()
  fail()
  await expect(first).rejects.toThrow('refused')
  const second = keeper.ready()
  expect(requests).toHaveLength(2)
  issue('by the new secret')
  await second
  expect(keeper.text).toBe('by the new secret')
})
