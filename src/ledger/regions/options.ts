import type { Clock } from '../../time/clock.ts'

export interface RegionsOptions {
  readonly clock: Clock
  /** The own region. */
  readonly name: string
  /** All regions, this one too, with the weight of each. */
  readonly weights: Readonly<Record<string, number>>
  /** The part of each limit that is divided by weight and never moves, from 0 to 1. */
  readonly reserve: number
  /** How long a share lasts if home does not renew it. */
  readonly leaseMs: number
  /** How long a call that is not answered may count after it was sent. */
  readonly longestCallMs: number
  /** Beginning of every key. */
  readonly prefix: string
  readonly home: Home
  /** Home gave no answer for so long that shares have ended. */
  readonly onAway?: (error: unknown) => void
  /** It answers again. */
  readonly onBack?: () => void
  /** Gateways with other limits, or another split, are alive: until they have ended this one has its reserve only. */
  readonly onOtherTerms?: (partition: string) => void
}

/** Runs home.lua in the Redis of all regions. */
export interface Home {
  exchange(keys: readonly string[], args: readonly (string | number)[]): Promise<string>
  close(): void
}
