import { describe, expect, test } from 'vitest'
import { type Fault, Faults } from '../../src/sandbox/faults.ts'

describe('a fault', () => {
  test('happens as often as told', () => {
    const faults = faultsOf({ status: 500, times: 2 })
    expect([draws(faults), draws(faults), draws(faults)]).toEqual([true, true, false])
  })

  test('happens to the share that was asked for', () => {
    const rolls = [0.1, 0.29, 0.3, 0.9]
    const faults = faultsOf({ status: 500, share: 0.3 }, () => rolls.shift()!)
    expect([draws(faults), draws(faults), draws(faults), draws(faults)]).toEqual([true, true, false, false])
    expect(draws(faultsOf({ share: 0 }, () => 0))).toBe(false)
  })

  test('happens only where it matches, and the others do not use it up', () => {
    const faults = faultsOf({ status: 500, times: 1, match: { method: 'POST', pathPrefix: '/ng/' } })
    expect(draws(faults, 'GET', '/ng/api')).toBe(false)
    expect(draws(faults, 'POST', '/v1/orgs')).toBe(false)
    expect(draws(faults, 'POST', '/ng/api')).toBe(true)
  })

  test('is over when it is cleared', () => {
    const faults = faultsOf({ status: 500 })
    faults.clear()
    expect(draws(faults)).toBe(false)
  })

  test.each<[unknown, string]>([
    [null, 'must be an object'],
    [[], 'must be an object'],
    [{ latency: 5 }, 'latency: unknown key; known here: latencyMs,'],
    [{ latencyMs: -1 }, 'latencyMs: must be a number of milliseconds'],
    [{ latencyMs: { min: 1 } }, 'latencyMs: must be a number of milliseconds'],
    [{ latencyMs: { min: 2, max: 1 } }, 'latencyMs: "min" must not be above "max"'],
    [{ status: 200 }, 'status: must be a whole number from 400 to 599'],
    [{ retryAfter: 'soon' }, 'retryAfter: must be a whole number of seconds, or one of seconds, date, none'],
    [{ reset: true }, 'reset: must be one of before-headers, after-headers, mid-body'],
    [{ stall: 'all' }, 'stall: must be one of headers, body'],
    [{ reset: 'mid-body', stall: 'body' }, 'stall: does not go with "reset"'],
    [{ share: 1.1 }, 'share: must be a number from 0 to 1'],
    [{ times: 0 }, 'times: must be a whole number, at least 1'],
    [{ match: 'GET' }, 'match: must be an object'],
    [{ match: { method: 'get' } }, 'match.method: must be a method in capitals'],
    [{ match: { path: '/' } }, 'match.path: unknown key; known here: method, pathPrefix'],
  ])('can not be %j: the message is "%s…", and the one before stays', (given, message) => {
    const faults = faultsOf({ status: 500 })
    expect(() => faults.set(given as Fault)).toThrow(message)
    expect(draws(faults)).toBe(true)
  })
})

function faultsOf(fault: Fault, random = () => 0.5): Faults {
  const faults = new Faults(random)
  faults.set(fault)
  return faults
}

function draws(faults: Faults, method = 'GET', path = '/'): boolean {
  return faults.draw(method, path) !== undefined
}
