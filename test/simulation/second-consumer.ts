import type { Random } from '../../src/time/clock.ts'
import { applyFeedback } from '../../src/gateway/upstream-feedback.ts'
import { CounterSeries } from '../../src/observe/series.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { type Ledger, type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import type { Permit } from '../../src/queue/permit.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { Arrivals } from '../../src/sandbox/arrivals.ts'
import { ANYONE } from '../support/anyone.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost } from './simulation.ts'
import { Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

/** Somebody uses an account without the gateways, whose clients always want more than there is. */
export interface Story {
  readonly seed: number
  /** 0 for one with the embedded ledger. */
  readonly gateways: number
  readonly requests: number
  readonly windowMs: number
  readonly latencyMs: { readonly min: number; readonly max: number }
  /** What the upstream says of what remains: nothing, or everything. */
  readonly dialect: 'silent' | 'headers'
  /** The part of the quota that the other one asks for, from the beginning of one window to that of another. */
  readonly share: number
  readonly from: number
  readonly until: number
  readonly windows: number
  /** It comes once a window, all at once. */
  readonly isBursty?: boolean
  /** It is let in even where nothing remains, as if the limit were lower. */
  readonly isFavoured?: boolean
}

/** What happened in one window. */
export interface Chapter {
  /** Calls of the gateways that the upstream accepted, and that it refused. */
  accepted: number
  refused: number
  /** Of these, those that clients saw. */
  seen: number
  /** Calls of the other one. */
  others: number
  othersRefused: number
}

export interface Tale {
  readonly chapters: readonly Chapter[]
  /** Windows after the other one stopped at which the whole limit could be used again. */
  readonly wholeAfter: number
}

export interface Summary {
  /** From the third window on: refused calls of all that were sent, and accepted ones of what the other left. */
  readonly refusedShare: number
  readonly used: number
  readonly seen: number
}

export function summaryOf({ requests, from, until }: Story, { chapters }: Tale): Summary {
  const steady = chapters.slice(from + 3, until)
  const sum = (key: keyof Chapter, of = steady) => of.reduce((total, one) => total + one[key], 0)
  const [accepted, refused] = [sum('accepted'), sum('refused')]
  return {
    refusedShare: refused / (accepted + refused),
    used: accepted / (steady.length * requests - sum('others')),
    seen: sum('seen', [...chapters]),
  }
}

export function tell(story: Story): Promise<Tale> {
  return new Telling(story).run()
}

/** Repeats of one call. */
const RETRIES = 5
const THROTTLE = { statuses: [429], pause: 1_000, maxPause: 300_000, retry: 'safe' as const }
const STORE = { config: { store: { kind: 'memory', onOutage: 'lease', prefix: '', commandTimeout: 50 } } } as const

class Telling {
  readonly story: Story
  readonly world = new World()
  readonly random: Random
  readonly chargeSet: ChargeSet
  readonly #beginning = this.world.now
  readonly #arrivals: Arrivals
  readonly #chapters: Chapter[]
  readonly #ledgers: Ledger[] = []
  #wholeAfter = Infinity

  constructor(story: Story) {
    const { requests, windowMs, windows, seed } = story
    this.story = story
    this.random = seededRandom(seed)
    this.chargeSet = chargeSetOf('it/main', [{ limit: limitOf({ id: 'read', class: 'read', requests, windowMs }) }])
    this.#arrivals = new Arrivals(windowMs)
    this.#chapters = Array.from({ length: windows }, () => {
      return { accepted: 0, refused: 0, seen: 0, others: 0, othersRefused: 0 }
    })
  }

  get chapter(): Chapter {
    const number = Math.floor((this.world.now - this.#beginning) / this.story.windowMs)
    return this.#chapters[Math.min(number, this.#chapters.length - 1)]!
  }

  async run(): Promise<Tale> {
    const { gateways, requests, share, from, until, windowMs, windows } = this.story
    const store = new Store(this.world, this.random, modelHost(), { leastMs: 0.1, meanMs: 0.3 })
    const count = Math.max(1, gateways)
    for (let i = 0; i < count; i++) {
      const process = new Process(this.world, 0)
      const ledger = gateways === 0 ? new MemoryLedger(process.clock) : sharedLedger(store, process, `${i}`)
      this.#ledgers.push(ledger)
      const gateway = new Gateway(this, process, ledger)
      for (let n = 0; n < (2 * requests) / count; n++) void gateway.call()
    }
    if (share > 0) this.world.at(this.#beginning + from * windowMs, () => this.#visit())
    this.world.at(this.#beginning + until * windowMs, () => this.#look())
    await this.world.runUntil(this.#beginning + windows * windowMs)
    return { chapters: this.#chapters, wholeAfter: this.#wholeAfter }
  }

  /** A call arrives upstream: whether it is accepted, and what the answer says. */
  arrive(isOurs: boolean): { isAccepted: boolean; fields: Record<string, string> } {
    const { requests, dialect, isFavoured = false } = this.story
    const { now } = this.world
    const isAccepted = (!isOurs && isFavoured) || this.#arrivals.count(now) < requests
    if (isAccepted) this.#arrivals.add(now)
    const { chapter } = this
    if (isOurs) chapter[isAccepted ? 'accepted' : 'refused']++
    else chapter[isAccepted ? 'others' : 'othersRefused']++
    if (dialect === 'silent') return { isAccepted, fields: {} }
    const counted = this.#arrivals.count(now)
    const fields = {
      'x-ratelimit-limit': String(requests),
      'x-ratelimit-remaining': String(Math.max(0, requests - counted)),
      'x-ratelimit-reset': String(Math.ceil((this.#arrivals.fewerThanAt(counted) - now) / 1_000)),
    }
    return { isAccepted, fields }
  }

  /** The other one calls. */
  #visit(): void {
    const { requests, windowMs, share, until, isBursty = false } = this.story
    if (this.world.now >= this.#beginning + until * windowMs) return
    const calls = isBursty ? Math.round(requests * share) : 1
    for (let n = 0; n < calls; n++) this.arrive(false)
    const everyMs = (windowMs * calls) / (requests * share)
    this.world.at(this.world.now + everyMs * (isBursty ? 1 : 0.5 + this.random()), () => this.#visit())
  }

  /** Whether the whole limit can be used again. */
  #look(): void {
    const { until, windowMs } = this.story
    const { now } = this.world
    void this.#ledgers[0]!.usage(this.chargeSet).then(([usage]) => {
      if (usage!.effective === undefined) this.#wholeAfter = (now - this.#beginning) / windowMs - until
      else this.world.at(now + windowMs / 10, () => this.#look())
    })
  }
}

function sharedLedger(store: Store, process: Process, gateway: string): RedisLedger {
  const runner = new Connection(store, process, () => undefined)
  // The simulated connection gives up by itself.
  return new RedisLedger({ runner, clock: process.clock, gateway, prefix: 'told', answerWithinMs: 1e12 })
}

class Gateway {
  readonly #telling: Telling
  readonly #process: Process
  readonly #queue: AdmissionQueue
  readonly #target = {
    upstream: { config: { throttle: THROTTLE } },
    account: { throttledAt: -Infinity },
    admissionPolicy: {
      metrics: { throttled: { explained: new CounterSeries({}), unexplained: new CounterSeries({}) } },
    },
  }

  constructor(telling: Telling, process: Process, ledger: Ledger) {
    this.#telling = telling
    this.#process = process
    const capacity = new ClassCapacity([new QueueCapacity(100_000, 'calls')])
    this.#queue = new AdmissionQueue({
      ledger,
      clock: process.clock,
      name: 'any',
      partition: telling.chargeSet.partition,
      capacity,
    })
  }

  /** One client: calls, goes back to wait where that is refused, and calls again. */
  async call(): Promise<never> {
    for (let repeats = 0; ;) {
      const { chargeSet } = this.#telling
      const waiter = { ...ANYONE, chargeSet, maxWaitMs: 86_400_000 }
      const admission = await this.#queue.enter(waiter)
      if (admission.kind !== 'admitted') throw new Error(admission.kind)
      const isRefused = await this.#send(admission.permit)
      if (isRefused && repeats === RETRIES) this.#telling.chapter.seen++
      repeats = isRefused && repeats < RETRIES ? repeats + 1 : 0
    }
  }

  async #send(permit: Permit): Promise<boolean> {
    const { story, random } = this.#telling
    const { min, max } = story.latencyMs
    const tookMs = min + random() * (max - min)
    const wayMs = (random() * tookMs) / 2
    await this.#sleep(wayMs)
    const { isAccepted, fields } = this.#telling.arrive(true)
    await this.#sleep(tookMs - wayMs)
    const call = { id: 'any', clock: this.#process.clock, snapshot: STORE }
    const head = { status: isAccepted ? 200 : 429, fields, tookMs, isDisguised: false }
    const isRefused = applyFeedback(call, this.#target, permit, head) !== undefined
    permit.commit()
    permit.leave()
    return isRefused
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#process.clock.schedule(ms, resolve))
  }
}
