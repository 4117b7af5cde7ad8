import type { Random } from '../../src/time/clock.ts'
import type { Fault, FaultProxy } from '../support/fault-proxy.ts'
import type { Stillness } from '../support/stillness.ts'
import { STORE_FAULTS, UPSTREAM_FAULTS } from '../system/faults/table.ts'

/** Which of the gateway's lines fail. `away` is an upstream that takes no connection at all, so that the breaker opens. */
const SEASONS = ['upstream', 'quiet', 'store', 'quiet', 'both', 'quiet', 'away', 'quiet'] as const
/** `still` is whatever it was while the machine gave us, the gateway or Redis no processor. */
export type Sky = (typeof SEASONS)[number] | 'still'

const QUIET_MS = 6_000
const FOUL_MS = 3_000
/** Of the exchanges with the upstream while its line is bad. */
const FAULTY_SHARE = 0.15
/**
 * A fault is felt for so long after it: what it stopped ends by its timeout, its quota comes back a window later, and a
 * gateway that finds Redis again waits for others that may have something to tell.
 */
const CLEAR_MS = 3_000

interface Stretch {
  readonly sky: Sky
  readonly from: number
  readonly until: number
}

/** What a call met. */
export interface Met {
  readonly sky: Sky
  /** Of a quiet one: which of the quiet stretches it was. */
  readonly stretch: number
}

/** Lets the lines to the upstream and to Redis fail by turns, with quiet in between. */
export class Weather {
  readonly #toUpstream: FaultProxy
  readonly #toStore: FaultProxy
  readonly #stillness: Stillness
  readonly #random: Random
  readonly #past: Stretch[] = []
  #storeFault: Fault | undefined

  constructor(toUpstream: FaultProxy, toStore: FaultProxy, stillness: Stillness, random: Random) {
    this.#toUpstream = toUpstream
    this.#toStore = toStore
    this.#stillness = stillness
    this.#random = random
  }

  /** Changes it, if it is time to. */
  turn(now: number): void {
    const last = this.#past.at(-1)
    if (last !== undefined && now < last.until) return
    const sky = SEASONS[this.#past.length % SEASONS.length]!
    const ms = (sky === 'quiet' ? QUIET_MS : FOUL_MS) * (0.75 + this.#random() / 2)
    this.#past.push({ sky, from: now, until: now + ms })
    const random = this.#toUpstream.random
    if (sky === 'away') this.#toUpstream.set({ kind: 'refuse' })
    else if (sky === 'upstream' || sky === 'both')
      this.#toUpstream.choose(() => (random() < FAULTY_SHARE ? pick(faultsOf(UPSTREAM_FAULTS), random) : undefined))
    else this.#toUpstream.set(undefined)
    this.#storeFault = sky === 'store' || sky === 'both' ? pick(faultsOf(STORE_FAULTS), this.#random) : undefined
    this.#toStore.set(this.#storeFault)
  }

  /** Whether it is quiet, and no bad stretch is felt any more. */
  isClear(now: number): boolean {
    const last = this.#past.at(-1)
    return last?.sky === 'quiet' && now >= last.from + CLEAR_MS
  }

  /** The present stretch, and what the line to the store does in it, for whoever has to find out what happened there. */
  get told(): string {
    return `${this.#past.at(-1)?.sky ?? 'quiet'}, with ${JSON.stringify(this.#storeFault) ?? 'no fault'} towards the store`
  }

  clear(): void {
    this.#toUpstream.set(undefined)
    this.#toStore.set(undefined)
  }

  /**
   * What a call may have felt that began and ended then: the first bad stretch, or else the last quiet one. What stood still is
   * the worst of all but one.
   */
  met(began: number, ended: number): Met {
    const felt = this.#felt(began, ended)
    if (felt.sky === 'away' || !this.#stillness.met(began, ended, CLEAR_MS)) return felt
    return { sky: 'still', stretch: -1 }
  }

  #felt(began: number, ended: number): Met {
    let met: Met = { sky: 'quiet', stretch: -1 }
    for (const [stretch, { sky, from, until }] of this.#past.entries()) {
      const felt = sky === 'quiet' ? until : until + CLEAR_MS
      if (from > ended || felt < began) continue
      if (sky !== 'quiet') return { sky, stretch: -1 }
      met = { sky, stretch }
    }
    return met
  }
}

export function pick<T>(list: readonly T[], random: Random): T | undefined {
  return list[Math.floor(random() * list.length)]
}

function faultsOf(rows: readonly { readonly fault: Fault | undefined }[]): Fault[] {
  return rows.flatMap(({ fault }) => fault ?? [])
}
