/** What home knows of one region and one limit. Amounts are units. */
export interface RegionState {
  readonly weight: number
  /** What nobody else is ever given. */
  readonly reserve: number
  /** What the region may use beyond its reserve. */
  readonly extra: number
  /** What it would use, and what its next call costs where that found no room; else 0. */
  readonly need: number
  readonly chunk: number
}

/**
 * How the pool, which is what the reserves leave of a limit, is best divided: what each region is to have beyond its reserve. First each
 * region gets what its next call lacks, in turns that begin with `first`; then what regions need is divided by weight; then what nobody
 * needs. So a limit of fewer units than regions, and a call that costs more than a fair part, wander from region to region.
 */
export function divide(regions: readonly RegionState[], pool: number, first: number): number[] {
  const wanted = regions.map(({ need, reserve }) => Math.max(0, need - reserve))
  const parts = regions.map(() => 0)
  let left = pool
  const give = (i: number, units: number): void => {
    parts[i]! += units
    left -= units
  }
  const inTurn = regions.map((_, n) => (first + n) % regions.length)
  for (const i of inTurn) {
    const next = Math.min(wanted[i]!, Math.max(0, regions[i]!.chunk - regions[i]!.reserve))
    if (next <= left) give(i, next)
  }
  while (left > 0) {
    const open = inTurn.filter((i) => parts[i]! < wanted[i]!)
    if (open.length === 0) break
    spread(open, left, (i, units) => give(i, Math.min(units, wanted[i]! - parts[i]!)))
  }
  spread(inTurn, left, give)
  return parts

  /** Divides `units` by weight. What is left of that goes one by one to those that come first. */
  function spread(among: readonly number[], units: number, give: (i: number, units: number) => void): void {
    const sum = among.reduce((total, i) => total + regions[i]!.weight, 0)
    const whole = among.map((i) => Math.floor((units * regions[i]!.weight) / sum))
    let rest = units - whole.reduce((total, one) => total + one, 0)
    for (const [n, i] of among.entries()) give(i, whole[n]! + (rest-- > 0 ? 1 : 0))
  }
}

export interface Own {
  /** The number of the own region. */
  readonly own: number
  /** What is used and leased of the region's share beyond its reserve. */
  readonly over: number
  /** Milliseconds since the region last asked for less. */
  readonly sinceMs: number
  readonly windowMs: number
}

/**
 * What the own region is to ask for beyond its reserve. It asks for less only while another region needs more: at once for what it does
 * not use, and for the rest no faster than half of what leaves a window. Otherwise its calls would stop for as long as the window takes
 * to empty.
 */
export function wantedBy(regions: readonly RegionState[], parts: readonly number[], about: Own): number {
  const { own, over, sinceMs, windowMs } = about
  const { extra, reserve } = regions[own]!
  const part = parts[own]!
  if (part >= extra) return part
  if (
    !regions.some((region, i) => i !== own && region.need > region.reserve + region.extra && parts[i]! > region.extra)
  )
    return extra
  const unused = extra - Math.max(0, over)
  const leaving = windowMs === 0 ? extra : Math.ceil(((extra + reserve) * sinceMs) / (2 * windowMs))
  return Math.max(part, extra - Math.max(unused, leaving))
}
