/** A colour from each value on; the first step has no value: it is the colour below all others. */
export type Thresholds = readonly (readonly [from: number | null, color: string])[]

/** Every threshold of the boards, in one place: what is well, what is worth a look, and what is wrong. */
export const THRESHOLDS = {
  /** A figure that is neither good nor bad. */
  none: [[null, 'blue']],
  /** Something that should not happen at all. */
  anyIsBad: [
    [null, 'green'],
    [1, 'red'],
  ],
  anyIsOdd: [
    [null, 'green'],
    [1, 'orange'],
  ],
  up: [
    [null, 'red'],
    [1, 'green'],
  ],
  /** The share of calls that the gateway refuses. */
  refused: [
    [null, 'green'],
    [0.01, 'yellow'],
    [0.1, 'red'],
  ],
  /** The share of calls that the upstream answers with 5xx. */
  errors: [
    [null, 'green'],
    [0.01, 'yellow'],
    [0.1, 'red'],
  ],
  /** The part of a quota or a budget that is used, red where SluiceQuotaNearlyUsed and SluiceBudgetNearlyUsed fire. */
  quota: [
    [null, 'green'],
    [0.8, 'yellow'],
    [0.9, 'red'],
  ],
  /** The same, as a line across a graph. */
  nearlyFull: [
    [null, 'transparent'],
    [0.9, 'red'],
  ],
  /** How many times as fast as an error budget allows it is used: 6 and 14.4 page. */
  budgetBurn: [
    [null, 'green'],
    [1, 'yellow'],
    [6, 'red'],
  ],
  /** The rate of the last minutes divided by the one that the limit allows for ever. */
  quotaBurn: [
    [null, 'green'],
    [1, 'yellow'],
    [2, 'red'],
  ],
  /** Seconds until a quota is used up. SluiceQuotaExhaustionAhead goes by the same: what ends within a minute is of a short window. */
  exhaustion: [
    [null, 'yellow'],
    [60, 'red'],
    [600, 'orange'],
    [7_200, 'green'],
  ],
  waiting: [
    [null, 'green'],
    [1, 'yellow'],
    [100, 'red'],
  ],
  /** Seconds. */
  wait: [
    [null, 'green'],
    [1, 'yellow'],
    [5, 'red'],
  ],
  /** Seconds until something stops being valid. */
  expiry: [
    [null, 'red'],
    [86_400, 'orange'],
    [7 * 86_400, 'green'],
  ],
  breaker: [
    [null, 'green'],
    [1, 'yellow'],
    [2, 'red'],
  ],
} as const satisfies Record<string, Thresholds>
