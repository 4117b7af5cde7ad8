import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Breaker, type BreakerPermit } from '../../src/resilience/breaker.ts'

// opossum keeps its own time, with the timers of Node.
const clock = { now: () => Date.now(), schedule: () => ({ cancel: () => undefined }), soon: () => undefined }

describe('a breaker', () => {
  let changes: string[]
  let breaker: Breaker
  beforeEach(() => {
    vi.useFakeTimers()
    changes = []
    breaker = new Breaker({ clock, failures: 5, resetMs: 60_000, onChange: (state) => void changes.push(state) })
  })
  afterEach(() => {
    breaker.close()
    vi.useRealTimers()
  })

  function enter(): BreakerPermit {
    const permit = breaker.enter({ isRepeat: false })
    if (permit === undefined) throw new Error('refused')
    return permit
  }

  async function open(): Promise<void> {
    for (let i = 0; i < 5; i++) enter().failed()
    await vi.advanceTimersByTimeAsync(0)
  }

  it('opens after the given number of failures in a row, and no sooner', async () => {
    for (let i = 0; i < 4; i++) enter().failed()
    enter().succeeded()
    for (let i = 0; i < 4; i++) enter().failed()
    expect(breaker.state).toBe('closed')
    enter().failed()
    expect(breaker.state).toBe('open')
    expect(breaker.enter({ isRepeat: false })).toBeUndefined()
    expect(breaker.retryAfterMs).toBe(60_000)
  })

  it('lets one call probe after the reset time, and closes if that succeeds', async () => {
    await open()
    await vi.advanceTimersByTimeAsync(59_999)
    expect(breaker.enter({ isRepeat: false })).toBeUndefined()
    await vi.advanceTimersByTimeAsync(1)
    expect(breaker.state).toBe('half-open')
    const probe = enter()
    expect(breaker.enter({ isRepeat: false })).toBeUndefined()
    probe.succeeded()
    await vi.advanceTimersByTimeAsync(0)
    expect(breaker.state).toBe('closed')
    expect(changes).toEqual(['open', 'half-open', 'closed'])
  })

  it('stays closed when the client of a probe that succeeded leaves', async () => {
    for (let i = 0; i < 5; i++) enter().failed()
    await vi.advanceTimersByTimeAsync(60_000)
    const probe = enter()
    probe.succeeded()
    probe.abandoned()
    await vi.advanceTimersByTimeAsync(0)
    expect(breaker.state).toBe('closed')
  })

  it('opens again for the whole reset time if the probe fails', async () => {
    await open()
    await vi.advanceTimersByTimeAsync(60_000)
    enter().failed()
    await vi.advanceTimersByTimeAsync(0)
    expect(breaker.state).toBe('open')
    expect(breaker.retryAfterMs).toBe(60_000)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(breaker.state).toBe('half-open')
  })

  it('lets another call probe soon if the client of the first left', async () => {
    await open()
    await vi.advanceTimersByTimeAsync(60_000)
    enter().abandoned()
    expect(breaker.enter({ isRepeat: false })).toBeUndefined()
    await vi.advanceTimersByTimeAsync(1_000)
    enter().succeeded()
    await vi.advanceTimersByTimeAsync(0)
    expect(breaker.state).toBe('closed')
  })

  it('is neither closed nor opened by calls that began before it opened', async () => {
    const late = Array.from({ length: 12 }, enter)
    for (const permit of late.slice(0, 5)) permit.failed()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(breaker.state).toBe('half-open')
    late[5]!.succeeded()
    late[6]!.failed()
    await vi.advanceTimersByTimeAsync(0)
    expect(breaker.state).toBe('half-open')
    enter().succeeded()
    await vi.advanceTimersByTimeAsync(0)
    for (const permit of late.slice(7)) permit.failed()
    expect(breaker.state).toBe('closed')
  })

  it('learns nothing from calls that were abandoned', () => {
    for (let i = 0; i < 4; i++) enter().failed()
    for (let i = 0; i < 10; i++) enter().abandoned()
    expect(breaker.state).toBe('closed')
    enter().failed()
    expect(breaker.state).toBe('open')
  })

  it('does not count repeats of a call, but learns from their success', () => {
    for (let call = 0; call < 4; call++) {
      breaker.enter({ isRepeat: false })!.failed()
      for (let i = 0; i < 5; i++) breaker.enter({ isRepeat: true })!.failed()
    }
    expect(breaker.state).toBe('closed')
    breaker.enter({ isRepeat: true })!.succeeded()
    for (let call = 0; call < 4; call++) breaker.enter({ isRepeat: false })!.failed()
    expect(breaker.state).toBe('closed')
    breaker.enter({ isRepeat: false })!.failed()
    expect(breaker.state).toBe('open')
  })
})
