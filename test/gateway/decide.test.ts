import { describe, expect, it } from 'vitest'
import { decide, type Ending } from '../../src/gateway/decide.ts'

const statuses = new Set([429, 500, 502, 503, 504])
const policy = {
  retries: 5,
  statuses,
  baseDelayMs: 1_000,
  maxDelayMs: 60_000,
  jitter: 'full',
  throttled: 'safe',
} as const
const first = { attempts: 1, isSafe: true, isReplayable: true, previousMs: 0, leftMs: 120_000 }
const half = (): number => 0.5

function response(status: number, retryAfterMs?: number): Ending {
  return { kind: 'response', status, retryAfterMs }
}

describe('whether an attempt is retried', () => {
  it.each<[string, Ending, boolean, boolean]>([
    // ending, safe call, call that is not safe
    ['nothing was sent', { kind: 'unreachable' }, true, true],
    ['the connection broke', { kind: 'interrupted' }, true, false],
    // It would be answered so again.
    ['the head of the response was too large', { kind: 'interrupted', isHeadTooLarge: true }, false, false],
    ['the time was up', { kind: 'timeout', phase: 'headers' }, false, false],
    ['429', response(429), true, false],
    ['500', response(500), true, false],
    ['502', response(502), true, false],
    ['503', response(503), true, false],
    ['504', response(504), true, false],
    ['501', response(501), false, false],
    ['505', response(505), false, false],
    ['400', response(400), false, false],
    ['404', response(404), false, false],
    ['408', response(408), false, false],
    ['200', response(200), false, false],
  ])('%s', (_, ending, safe, unsafe) => {
    expect(decide(ending, policy, first, half) !== undefined).toBe(safe)
    expect(decide(ending, policy, { ...first, isSafe: false }, half) !== undefined).toBe(unsafe)
  })

  it.each<[string, Ending, boolean]>([
    ['429 for too many calls', { kind: 'throttled', status: 429, pauseMs: 5_000 }, true],
    ['403 for too many calls', { kind: 'throttled', status: 403, pauseMs: 5_000 }, true],
    ['429 of one credential of several', response(429), true],
    // It may have begun.
    ['503 for too many calls', { kind: 'throttled', status: 503, pauseMs: 5_000 }, false],
    ['503', response(503), false],
    ['403', response(403), false],
    ['a broken connection', { kind: 'interrupted' }, false],
  ])('of a call that is not safe, where the upstream refuses before it acts: %s', (_, ending, isRetried) => {
    const unsafe = { ...first, isSafe: false }
    expect(decide(ending, { ...policy, throttled: 'any' }, unsafe, half) !== undefined).toBe(isRetried)
    expect(decide(ending, policy, unsafe, half)).toBeUndefined()
    const withoutBody = { ...unsafe, isReplayable: false }
    expect(decide(ending, { ...policy, throttled: 'any' }, withoutBody, half)).toBeUndefined()
  })

  it('ends after the given number of retries', () => {
    expect(decide(response(503), policy, { ...first, attempts: 5 }, half)).toBeDefined()
    expect(decide(response(503), policy, { ...first, attempts: 6 }, half)).toBeUndefined()
    expect(decide({ kind: 'unreachable' }, { ...policy, retries: 0 }, first, half)).toBeUndefined()
  })

  it('never retries a call whose body is gone', () => {
    expect(decide({ kind: 'unreachable' }, policy, { ...first, isReplayable: false }, half)).toBeUndefined()
  })

  it('waits as long as the upstream said', () => {
    expect(decide(response(429, 30_000), policy, first, half)).toBe(30_500)
  })

  it('answers now with what the upstream said if the wait does not fit into the time that is left', () => {
    expect(decide(response(429, 119_000), policy, first, () => 0)).toBeDefined()
    expect(decide(response(429, 120_000), policy, first, () => 0)).toBeUndefined()
    expect(decide(response(503), policy, { ...first, leftMs: 400 }, half)).toBeUndefined()
  })
})
