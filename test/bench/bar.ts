/** What is asked of a figure, in its own unit. */
export type Asked = { readonly atMost: number } | { readonly atLeast: number }

/** A figure beside its bar. */
export interface Bar {
  readonly name: string
  readonly value: number
  readonly asked: Asked
  readonly unit: string
  readonly isMet: boolean
}

/** Every bar of this process, in the order in which they were measured. */
export const bars: Bar[] = []

/**
 * Prints one line that begins with `met` or `missed`, like `met     added p50 0.41 ms, asked at most 1 ms`, and keeps the
 * figure in `bars`. A process that missed a bar ends with the exit code 2, and so one that fails
 * is told from it. A figure that is no number misses its bar. A ratio
 * has the unit ''.
 */
export function bar(name: string, value: number, asked: Asked, unit: string): Bar {
  const isMet = 'atMost' in asked ? value <= asked.atMost : value >= asked.atLeast
  const limit = 'atMost' in asked ? `at most ${asked.atMost}` : `at least ${asked.atLeast}`
  const suffix = unit === '' ? '' : ` ${unit}`
  console.log(`${isMet ? 'met    ' : 'missed '} ${name} ${digits(value)}${suffix}, asked ${limit}${suffix}`)
  if (!isMet) process.exitCode = 2
  const measured = { name, value, asked, unit, isMet }
  bars.push(measured)
  return measured
}

/** Three digits that say something, and no more: 0.412, 4.12, 41.2, 412, 4120. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const before = Math.abs(value) < 1 ? 0 : Math.floor(Math.log10(Math.abs(value))) + 1
  return value.toFixed(Math.max(0, 3 - before))
}
