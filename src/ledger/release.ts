/** `units` of a quota that come back `inMs` milliseconds from now. */
export interface Release {
  readonly inMs: number
  readonly units: number
  /** It belongs to calls in flight, so it comes later by as much as these still take. */
  readonly isInFlight?: boolean
}

/** Units of a limit that others may use, when a call may find out whether they do, and when all of them may be used again. */
export interface Others {
  readonly units: number
  readonly lookInMs: number
  readonly untilInMs: number
}

/** Adds what others may use: what a call is `missing` comes back when it may find out, the rest when all may be used again. */
export function withOthers(releases: readonly Release[], others: Others | undefined, missing: number): Release[] {
  if (others === undefined) return [...releases]
  const looking = Math.max(0, Math.min(others.units, missing))
  const theirs = [
    { inMs: Math.max(0, others.lookInMs), units: looking },
    { inMs: others.untilInMs, units: others.units - looking },
  ]
  return [...releases, ...theirs].sort((a, b) => a.inMs - b.inMs)
}
