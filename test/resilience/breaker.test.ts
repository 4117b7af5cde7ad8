import { beforeEach, describe, expect, it } from 'vitest'
import { Breaker, type BreakerOptions, type BreakerPermit } from '../../src/resilience/breaker.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const SECOND = 1_000
const RESET = 60 * SECOND
const FAILURE = { because: 'status 503', correlationId: 'id' }

let clock: SimulatedClock
let changes: string[]
let breaker: Breaker

function newBreaker(options: Partial<BreakerOptions> = {}): Breaker {
  clock = new SimulatedClock()
  changes = []
  return new Breaker({
    clock,
    failures: 5,
    resetMs: RESET,
    maxResetMs: 10 * RESET,
    probes: 1,
    onChange: (state, { forMs, isByHand }) =>
      changes.push(`${state}${forMs === undefined ? '' : ` ${forMs / SECOND}s`}${isByHand ? ' by hand' : ''}`),
    ...options,
  })
}

beforeEach(() => {
  breaker = newBreaker()
})

function enter(): BreakerPermit {
  const permit = breaker.enter({ isRetry: false })
  if (permit === undefined) throw new Error('the breaker refuses')
  return permit
}

const refuses = (): boolean => breaker.isRefusing && breaker.enter({ isRetry: false }) === undefined

function fail(times: number): void {
  for (let i = 0; i < times; i++) enter().failed(FAILURE)
}

function succeed(): void {
  const permit = enter()
  permit.answered()
  permit.completed()
}

describe('a breaker', () => {
  it('opens after so many failures in a row, and refuses for the reset time', async () => {
    fail(4)
    succeed()
    fail(4)
    expect(breaker.state).toBe('closed')
    fail(1)
    expect(changes).toEqual(['open 60s'])
    expect(breaker.retryAfterMs).toBe(RESET)
    await clock.advance(RESET - 1)
    expect(refuses()).toBe(true)
    expect(breaker.state).toBe('open')
    await clock.advance(1)
    expect(breaker.state).toBe('half-open')
    expect(breaker.isRefusing).toBe(false)
  })

  it('says which failure opened it', async () => {
    const told: unknown[] = []
    breaker = newBreaker({ failures: 2, onChange: (state, { failure }) => told.push([state, failure]) })
    enter().failed({ because: 'status 500', correlationId: 'first' })
    enter().failed({ because: 'status 503', correlationId: 'second' })
    await clock.advance(RESET)
    enter().failed({ because: 'timeout (headers)', correlationId: 'probe' })
    breaker.close()
    breaker.hold()
    expect(told).toEqual([
      ['open', { because: 'status 503', correlationId: 'second' }],
      ['half-open', undefined],
      ['open', { because: 'timeout (headers)', correlationId: 'probe' }],
      ['closed', undefined],
      ['open', undefined],
    ])
  })

  it('counts a response whose body broke off as a failure, also after good headers', () => {
    for (let i = 0; i < 5; i++) {
      const permit = enter()
      permit.answered()
      permit.failed(FAILURE)
    }
    expect(breaker.state).toBe('open')
  })

  it('needs no timer, nor anybody who looks, to become half-open', async () => {
    fail(5)
    expect(clock.timers).toBe(0)
    await clock.advance(2 * RESET)
    succeed()
    expect(changes).toEqual(['open 60s', 'half-open', 'closed'])
  })

  it('lets one more probe where one has told nothing for the reset time, and believes the first that tells', async () => {
    fail(5)
    await clock.advance(RESET)
    const upload = enter()
    await clock.advance(RESET - 1)
    expect(refuses()).toBe(true)
    await clock.advance(1)
    const second = enter()
    expect(refuses()).toBe(true)
    second.answered()
    expect(breaker.state).toBe('closed')
    upload.failed(FAILURE)
    expect(breaker.state).toBe('closed')
  })

  it('lets one call probe, and closes if that is answered, before its body is there', async () => {
    fail(5)
    await clock.advance(RESET)
    const probe = enter()
    expect(probe.isProbe).toBe(true)
    expect(refuses()).toBe(true)
    expect(breaker.retryAfterMs).toBe(SECOND)
    probe.answered()
    expect(breaker.state).toBe('closed')
    fail(4)
    expect(breaker.state).toBe('closed')
  })

  it('lets as many calls probe as are configured, and closes when all of them were answered', async () => {
    breaker = newBreaker({ probes: 3 })
    fail(5)
    await clock.advance(RESET)
    const probes = [enter(), enter(), enter()]
    expect(refuses()).toBe(true)
    probes[0]!.answered()
    expect(refuses()).toBe(true)
    probes[1]!.abandoned()
    const last = enter()
    expect(refuses()).toBe(true)
    last.answered()
    expect(breaker.state).toBe('half-open')
    probes[2]!.answered()
    expect(breaker.state).toBe('closed')
  })

  it('opens again at the first probe that fails, whatever the others tell then', async () => {
    breaker = newBreaker({ probes: 3 })
    fail(5)
    await clock.advance(RESET)
    const probes = [enter(), enter(), enter()]
    probes[0]!.failed(FAILURE)
    expect(breaker.state).toBe('open')
    probes[1]!.answered()
    probes[2]!.failed(FAILURE)
    expect(breaker.state).toBe('open')
    expect(changes).toEqual(['open 60s', 'half-open', 'open 120s'])
    await clock.advance(2 * RESET)
    expect([enter(), enter(), enter()].every(({ isProbe }) => isProbe)).toBe(true)
  })

  it('takes only the first word of a probe', async () => {
    breaker = newBreaker({ probes: 2 })
    fail(5)
    await clock.advance(RESET)
    const probe = enter()
    probe.answered()
    probe.answered()
    probe.failed(FAILURE)
    probe.abandoned()
    expect(breaker.state).toBe('half-open')
    enter().answered()
    expect(breaker.state).toBe('closed')
  })

  it('lets another call probe at once if the client of the first left', async () => {
    fail(5)
    await clock.advance(RESET)
    enter().abandoned()
    enter().answered()
    expect(breaker.state).toBe('closed')
  })

  it('is neither closed nor opened by what began before it opened, in whichever state it is then', async () => {
    const late = Array.from({ length: 20 }, enter)
    for (const permit of late.slice(0, 5)) permit.failed(FAILURE)
    const tell = (permits: readonly BreakerPermit[]): void => {
      for (const [i, permit] of permits.entries()) {
        if (i % 2 === 0) permit.failed(FAILURE)
        else {
          permit.answered()
          permit.completed()
        }
      }
    }
    tell(late.slice(5, 9))
    expect(breaker.state).toBe('open')
    expect(breaker.retryAfterMs).toBe(RESET)
    await clock.advance(RESET)
    expect(breaker.state).toBe('half-open')
    tell(late.slice(9, 13))
    expect(breaker.state).toBe('half-open')
    enter().answered()
    for (const permit of late.slice(13)) permit.failed(FAILURE)
    expect(changes).toEqual(['open 60s', 'half-open', 'closed'])
    // Nor do they count against what came after.
    fail(4)
    expect(breaker.state).toBe('closed')
  })

  it('learns nothing from calls that were abandoned', () => {
    fail(4)
    for (let i = 0; i < 10; i++) enter().abandoned()
    expect(breaker.state).toBe('closed')
    fail(1)
    expect(breaker.state).toBe('open')
  })

  it('does not count retries of a call, but learns from their success', () => {
    for (let call = 0; call < 4; call++) {
      fail(1)
      for (let i = 0; i < 5; i++) breaker.enter({ isRetry: true })!.failed(FAILURE)
    }
    expect(breaker.state).toBe('closed')
    breaker.enter({ isRetry: true })!.completed()
    fail(4)
    expect(breaker.state).toBe('closed')
    fail(1)
    expect(breaker.state).toBe('open')
  })
})

describe('a breaker that opens again and again', () => {
  /** Through half-open to closed. */
  async function recover(): Promise<void> {
    await clock.advance(breaker.retryAfterMs)
    succeed()
  }

  it('stays open twice as long each time, up to the most', async () => {
    fail(5)
    for (let i = 0; i < 5; i++) {
      await clock.advance(breaker.retryAfterMs)
      enter().failed(FAILURE)
    }
    const openings = changes.filter((change) => change.startsWith('open'))
    expect(openings).toEqual(['open 60s', 'open 120s', 'open 240s', 'open 480s', 'open 600s', 'open 600s'])
  })

  it('does so too where a probe had closed it for a moment', async () => {
    fail(5)
    await recover()
    await clock.advance(RESET - 1)
    fail(5)
    expect(changes.at(-1)).toBe('open 120s')
  })

  it('begins anew once it was closed for as long as it had been open', async () => {
    fail(5)
    await recover()
    fail(5)
    expect(changes.at(-1)).toBe('open 120s')
    await recover()
    await clock.advance(2 * RESET)
    fail(5)
    expect(changes.at(-1)).toBe('open 60s')
  })

  it('is never open for less than the reset time, even if the most is less', () => {
    breaker = newBreaker({ maxResetMs: SECOND })
    fail(5)
    expect(changes).toEqual(['open 60s'])
  })
})

describe('a breaker that is operated by hand', () => {
  it('stays open until it is closed', async () => {
    const before = enter()
    breaker.hold()
    expect(changes).toEqual(['open by hand'])
    await clock.advance(100 * RESET)
    expect(refuses()).toBe(true)
    expect(breaker.retryAfterMs).toBe(RESET)
    before.answered()
    before.completed()
    expect(breaker.state).toBe('open')
    breaker.close()
    expect(changes).toEqual(['open by hand', 'closed by hand'])
    fail(5)
    expect(changes.at(-1)).toBe('open 60s')
  })

  it('closes at once, without a probe, and what probes then tells nothing', async () => {
    fail(5)
    await clock.advance(RESET)
    const probe = enter()
    breaker.close()
    probe.failed(FAILURE)
    expect(breaker.state).toBe('closed')
    fail(4)
    expect(breaker.state).toBe('closed')
  })
})
