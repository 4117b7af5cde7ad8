import { describe, expect, it } from 'vitest'
import { checkConfig, parseConfig } from '../../src/config/load.ts'
import { PriceList } from '../../src/gateway/price-list.ts'
import { LearnedPrices } from '../../src/gateway/reserve.ts'
import { completeRoute } from '../../src/routing/route.ts'
import { amountOf } from '../../src/schema/price-schema.ts'
import { seededRandom } from '../support/seeded-random.ts'

const VALUES = {
  input: { body: '/in' },
  cached: { body: '/cached', default: 0 },
  output: { body: '/out' },
}
const LIST = {
  small: { input: 0.15, cached: 0.075, output: 0.6 },
  'large*': { input: 2.5, cached: 1.25, output: 10 },
  'large-old*': { input: 5, cached: 2.5, output: 20 },
  image: { call: 0.04 },
  default: { input: 30, cached: 15, output: 60, call: 0.001 },
}
const PRICE = { unit: 'usd', per: 1_000_000, response: { values: VALUES }, list: LIST, reserve: 2 }

function pricesOf(price: object = PRICE): PriceList {
  const upstreams = { llm: { url: 'http://llm.example', accounts: { main: {} }, price } }
  return new PriceList(checkConfig({ upstreams }, 'test').upstreams['llm']!.price!, new LearnedPrices())
}

const route = completeRoute('POST', { class: 'chat' })
const bodyOf = (body: object): Buffer => Buffer.from(JSON.stringify(body))

describe('a price list', () => {
  it.each<[string, object, number]>([
    ['the entry of its model', { model: 'small' }, 1_000 * 150 + 10 * 75 + 100 * 600],
    ['the entry with the beginning of its model', { model: 'large-2026' }, 1_000 * 2_500 + 10 * 1_250 + 100 * 10_000],
    ['the longest such one', { model: 'large-old-1' }, 1_000 * 5_000 + 10 * 2_500 + 100 * 20_000],
    ['the default', { model: 'smaller' }, 1_000 * 30_000 + 10 * 15_000 + 100 * 60_000 + 1_000_000],
    ['the default where there is no model', {}, 1_000 * 30_000 + 10 * 15_000 + 100 * 60_000 + 1_000_000],
    ['the default where the model is no text', { model: ['small'] }, 37_150_000],
    ['a price of its own, whatever the answer says', { model: 'image' }, 40_000_000],
  ])('prices a call by %s', (_, body, units) => {
    const prices = pricesOf()
    expect(prices.units({}, [1_000, 10, 100], prices.tariffFor(route, bodyOf(body)))).toBe(units)
  })

  it('takes the entry that a route names, whatever the model is', () => {
    const prices = pricesOf()
    const priced = completeRoute('POST', { class: 'chat', price: 'image' })
    expect(
      prices.reserveFor(
        { route: priced, client: 'c', body: undefined },
        prices.tariffFor(priced, bodyOf({ model: 'small' })),
      ),
    ).toBe(40_000_000)
  })

  it('charges the most where neither a model nor a default is there, and does not know what that costs', () => {
    const { default: _, ...list } = LIST
    const prices = pricesOf({ ...PRICE, list })
    const tariff = prices.tariffFor(route, bodyOf({ model: 'smaller' }))
    expect(prices.reserveFor({ route, client: 'c', body: undefined }, tariff)).toBe(2_000_000_000)
    expect(prices.units({}, [1, 1, 1], tariff)).toBeUndefined()
  })

  it('computes with prices in the formula of the answer and of the reservation', () => {
    const formula = '(input - cached) * inputPrice + cached * cachedPrice + output * outputPrice + 2 * callPrice'
    const reserve = { values: { most: { body: '/max' } }, formula: 'bytes * inputPrice + most * outputPrice', most: 1 }
    const prices = pricesOf({ ...PRICE, response: { values: VALUES, formula }, reserve })
    const body = bodyOf({ model: 'small', max: 1_000 })
    const tariff = prices.tariffFor(route, body)
    expect(prices.units({}, [1_000, 10, 100], tariff)).toBe(990 * 150 + 10 * 75 + 100 * 600)
    const reserved = prices.reserveFor({ route, client: 'c', body }, tariff)
    expect(reserved).toBeGreaterThanOrEqual(body.length * 150 + 600_000)
    expect(reserved).toBeLessThanOrEqual((body.length * 150 + 600_000) * (17 / 16))
  })

  it('takes money that the answer itself tells, where there is no list', () => {
    const prices = pricesOf({ unit: 'usd', response: { values: { cost: { header: 'X-Cost' } } }, reserve: 1 })
    expect(prices.units({ 'x-cost': '0.000123457' }, [], undefined)).toBe(123_457)
    expect(prices.units({}, [], undefined)).toBeUndefined()
  })

  it('loses and gains nothing over a million small calls: each is exact, or one billionth at most too dear', () => {
    const random = seededRandom(20_260_111)
    // 12.5 and 37.5 billionths a token: halves of what is counted.
    const list = { nano: { input: 0.0125, cached: 0, output: 0.0375 } }
    const prices = pricesOf({ ...PRICE, list, reserve: 1 })
    const tariff = prices.tariffFor(route, bodyOf({ model: 'nano' }))
    let [counted, halves, odd] = [0, 0n, 0]
    for (let i = 0; i < 1_000_000; i++) {
      const [input, output] = [Math.floor(random() * 5_000), Math.floor(random() * 500)]
      counted += prices.units(undefined, [input, 0, output], tariff)!
      const exact = BigInt(input) * 25n + BigInt(output) * 75n
      halves += exact
      odd += Number(exact % 2n)
    }
    expect(Number.isSafeInteger(counted)).toBe(true)
    // Rounded up once a call, by half a billionth, and only where that is not whole.
    expect(BigInt(counted) * 2n).toBe(halves + BigInt(odd))
    expect(amountOf({ unit: 'usd' }, counted)).toBeCloseTo(Number(halves) / 2e9, 2)
  })
})

describe('the configuration of money', () => {
  const problem = (upstream: object, rest: object = {}): string => {
    const llm = { url: 'http://llm.example', accounts: { main: {} }, ...upstream }
    const text = JSON.stringify({ upstreams: { llm }, ...rest })
    try {
      parseConfig(text, { source: 'c' })
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const key = { keys: [`sha256:${'1'.repeat(64)}`] }
  const usd = (amount: number | string, more: object = {}) => ({ amount, unit: 'usd', window: '1h', ...more })

  it('can have prices as texts, budgets at every level, and limits of accounts', () => {
    const list = { a: { input: '0.15', cached: '0', output: '0.60' }, default: { call: '0.000000001' } }
    const rest = {
      organisations: { acme: { budget: [usd('1000.50')] } },
      teams: { blue: { organisation: 'acme', budget: [usd(100, { enforce: false, warnAt: '50%' })] }, red: {} },
      clients: { bot: { ...key, team: 'blue', budget: [usd(10), { requests: 5, window: '1h' }] } },
    }
    expect(problem({ price: { ...PRICE, list }, limits: { all: [usd(50)] } }, rest)).toBe('')
  })

  it.each<[string, object, object, string]>([
    [
      'a team that is not there',
      {},
      { clients: { bot: { ...key, team: 'blu' } }, teams: { blue: {} } },
      'clients.bot.team: there is no such team; did you mean "blue"?',
    ],
    [
      'an organisation that is not there',
      {},
      { teams: { blue: { organisation: 'acme' } } },
      'teams.blue.organisation: there is no such organisation',
    ],
    [
      'a negative price',
      { price: { ...PRICE, list: { a: { ...LIST.small, input: -1 } } } },
      {},
      'upstreams.llm.price.list.a.input: must be from 0 to 4000000',
    ],
    [
      'a price with more digits than are counted',
      { price: { ...PRICE, list: { a: { ...LIST.small, input: 0.0000000001 } } } },
      {},
      'price.list.a.input: must be from 0 to 4000000, with at most 9 digits after the point',
    ],
    [
      'an amount with more digits than are counted',
      { price: PRICE },
      { clients: { bot: { ...key, budget: [usd('10.0000000001')] } } },
      'clients.bot.budget[0].amount: must be more than 0 and up to 4000000, with at most 9 digits',
    ],
    [
      'an amount that is too large',
      { price: PRICE },
      { clients: { bot: { ...key, budget: [usd(4_000_001)] } } },
      'clients.bot.budget[0].amount: must be more than 0',
    ],
    [
      'an amount without currency',
      { price: PRICE },
      { clients: { bot: { ...key, budget: [{ amount: 5, window: '1h' }] } } },
      'clients.bot.budget[0]: needs either requests, or amount and unit',
    ],
    [
      'another currency',
      { price: PRICE },
      { clients: { bot: { ...key, budget: [{ ...usd(5), unit: 'eur' }] } } },
      'clients.bot.budget[0].unit: the price of upstream "llm" is in usd, and nothing is converted',
    ],
    [
      'another currency of a limit',
      { price: PRICE, limits: { all: [{ ...usd(5), unit: 'eur' }] } },
      {},
      'limits.all[0].unit: the price of the upstream is in usd',
    ],
    [
      'a budget without prices',
      {},
      { clients: { bot: { ...key, budget: [usd(5)] } } },
      'clients.bot.budget[0].amount: no upstream has a price',
    ],
    [
      'a limit without prices',
      { limits: { all: [usd(5)] } },
      {},
      'limits.all[0].amount: the upstream has no price, so no call would be charged; add price',
    ],
    [
      'a limit with units and money',
      { price: PRICE, limits: { all: [usd(5, { requests: 5 })] } },
      {},
      'limits.all[0].requests: requests does not go with amount; write two limits',
    ],
    [
      'a budget below what is reserved',
      { price: PRICE },
      { clients: { bot: { ...key, budget: [usd(1.5)] } } },
      'a call for which 2 usd is reserved could never be sent',
    ],
    [
      'a price of a value that no answer has',
      { price: { unit: 'usd', list: { default: { input: 1 } } } },
      {},
      'price.list.default.input: there is no price.response that could have it',
    ],
    [
      'a value without a price',
      { price: { ...PRICE, list: { a: { input: 1, output: 2 } } } },
      {},
      'price.list.a: has no price for cached, which response.values has',
    ],
    [
      'a formula with a price that is none',
      { price: { ...PRICE, response: { values: VALUES, formula: 'input * inPrice' } } },
      {},
      'price.response.formula: character 9: no value is named "inPrice"',
    ],
    ['no reservation', { price: { ...PRICE, reserve: undefined } }, {}, 'upstreams.llm.price: needs reserve'],
    ['neither answers nor prices', { price: { unit: 'usd' } }, {}, 'upstreams.llm.price: needs response'],
    [
      'a route with a price that is none',
      { price: PRICE, limits: { chat: [] }, routes: [{ path: '/x', class: 'chat', price: 'imag' }] },
      {},
      'routes[0].price: price.list has no such entry; did you mean "image"?',
    ],
    [
      'a window twice',
      { price: PRICE },
      { organisations: { acme: { budget: [usd(5), usd(6)] } } },
      'organisations.acme.budget[1].window: another entry has the same window',
    ],
  ])('can not have %s', (_, upstream, rest, message) => {
    expect(problem(upstream, rest)).toContain(message)
  })
})
