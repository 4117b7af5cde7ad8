/**
 * An exact number: `over / under`. No sum or product of decimal numbers is rounded, however many there are. It is not a number where
 * `under` is 0.
 */
export interface Fraction {
  readonly over: bigint
  readonly under: bigint
}

export const add = (a: Fraction, b: Fraction): Fraction => ({
  over: a.over * b.under + b.over * a.under,
  under: a.under * b.under,
})
export const negated = ({ over, under }: Fraction): Fraction => ({ over: -over, under })
export const times = (a: Fraction, b: Fraction): Fraction => ({ over: a.over * b.over, under: a.under * b.under })
export const divided = (a: Fraction, b: Fraction): Fraction => ({ over: a.over * b.under, under: a.under * b.over })

/** What is no number stays none. */
export const greater = (a: Fraction, b: Fraction): Fraction => (isLess(a, b) ? b : a)
export const lesser = (a: Fraction, b: Fraction): Fraction => negated(greater(negated(a), negated(b)))

function isLess(a: Fraction, b: Fraction): boolean {
  const { over, under } = add(b, negated(a))
  return under === 0n ? a.under !== 0n : over > 0n === under > 0n && over !== 0n
}

const DECIMAL = /^(-?\d*)(?:\.(\d+))?(?:e([-+]?\d+))?$/i

/** The decimal number that is written so; of a number, the shortest one that reads as it, which is how it was written. */
export function fractionOf(value: number | string): Fraction {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return { over: BigInt(value), under: 1n }
  const [, whole = '', decimals = '', exponent = '0'] = DECIMAL.exec(String(value)) ?? []
  if (whole + decimals === '') return { over: 0n, under: 0n }
  const power = Number(exponent) - decimals.length
  const over = BigInt(whole + decimals)
  return power < 0 ? { over, under: 10n ** BigInt(-power) } : { over: over * 10n ** BigInt(power), under: 1n }
}

/** The smallest whole number that is not less; undefined if it is not a number. */
export function roundedUp({ over, under }: Fraction): bigint | undefined {
  if (under === 0n) return undefined
  const [numerator, denominator] = under < 0n ? [-over, -under] : [over, under]
  const quotient = numerator / denominator
  return numerator > 0n && quotient * denominator < numerator ? quotient + 1n : quotient
}
