/** What home knows of one region and one limit. Amounts are units. */
export interface RegionState {
  readonly weight: number
  /** Always the region's own. */
  readonly reserve: number
  /** What the region may use beyond its reserve. */
  readonly extra: number
  /** What it would use if it could. */
  readonly need: number
  /** What its latest call costs that found no room; 0 if calls find room. */
  readonly chunk: number
}

/**
 * Divides the pool, which is what the reserves leave of a limit. Returns what each region is to have beyond its reserve. First each region
 * gets what its next call lacks, in an order that begins with `first`. Then the needs of regions are met, by weight. Then the rest is divided
 * by weight. The caller moves `first` on. So each region has its turn to get the units of a limit that has fewer units than regions, or of a
 * call that costs more than the region's part.
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

  /** Divides `units` by weight, rounded down. The units that rounding leaves go one by one to those that come first. */
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
  /** What the region has used and leased beyond its reserve. */
  readonly over: number
  /** Milliseconds since the region last asked for less. */
  readonly sinceMs: number
  readonly windowMs: number
}

/**
 * What the own region is to ask for beyond its reserve. It asks for less only while another region needs more. What it does not use, it
 * gives up at once. What it uses, it gives up no faster than half of what leaves a window. Otherwise none of its calls would find room until
 * the window is empty.
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
