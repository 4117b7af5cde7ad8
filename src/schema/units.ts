const MS_PER_UNIT: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Reads `500ms`, `30s`, `5m` or `1h` as milliseconds; the text must already match the schema's pattern. */
export function parseDuration(text: string): number {
  const [, amount = '', unit = ''] = /^(\d+)(ms|s|m|h)$/.exec(text) ?? []
  return Number(amount) * (MS_PER_UNIT[unit] ?? Number.NaN)
}

/** Writes milliseconds as a config file would: in the largest unit of which they are a whole number. */
export function formatDuration(ms: number): string {
  for (const unit of ['h', 'm', 's']) {
    const size = MS_PER_UNIT[unit] ?? 1
    if (ms >= size && ms % size === 0) return `${ms / size}${unit}`
  }
  return `${ms}ms`
}

/** Reads `20%` as 0.2. */
export function parsePercent(text: string): number {
  return Number(text.slice(0, -1)) / 100
}

/** Writes a share as it was written. A product alone would make 7.000000000000001% of 7%, and 1e-7% of 0.0000001%. */
export function formatPercent(share: number): string {
  return `${(share * 100).toLocaleString('en', { maximumSignificantDigits: 15, useGrouping: false })}%`
}

/**
 * Reads a date with a time, as milliseconds since 1970. A date without a time means the end of that day in UTC. NaN for a date
 * or time that does not exist.
 */
export function parseMoment(text: string): number {
  const [day = '', time] = text.split('T')
  const midnight = Date.parse(`${day}T00:00Z`)
  // `Date` would read 2027-02-30 as the 2nd of March.
  if (Number.isNaN(midnight) || !new Date(midnight).toISOString().startsWith(day)) return Number.NaN
  return Date.parse(time === undefined ? `${day}T24:00Z` : text)
}

/** A rough time, for people: `3 s`, `4 min`, `2 h`, `5 days`. Seconds are rounded up, so that nobody comes back too soon. */
export function roughly(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 120_000) return `${Math.ceil(ms / 1_000)} s`
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`
  return `${Math.round(ms / 86_400_000)} days`
}

/** A time that was measured, for people, in seconds from one on, as `roughly` has it: `250 ms`, `1.3 s`, `12.5 s`. */
export function measured(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`
}

/** A number with its noun, for people: `1 call`, `2 calls`. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
