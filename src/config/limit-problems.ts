import {
  allowedBy,
  type CostByCall,
  EVERY_CALL,
  isBase,
  isByCall,
  labelOf,
  scopeOf,
  windowLabel,
} from '../schema/limits.ts'
import { METHODS } from '../http/node-http.ts'
import { checkAmount, checkFormula, checkReserve, checkValues } from './money-problems.ts'
import type { Preset } from './presets/preset.ts'
import { checkName, type Path, type Report } from './problem.ts'
import type { LimitConfig, UpstreamConfig } from '../schema/schema.ts'
import { checkWindow } from './window-problems.ts'

/** Finds limits that contradict each other, that are never reached, or that never let a call through. */
export function checkLimits(path: Path, upstream: UpstreamConfig, preset: Preset | undefined, report: Report): void {
  for (const [className, limits] of Object.entries(upstream.limits)) {
    for (const [index, limit] of limits.entries()) {
      const at = [...path, 'limits', className, index]
      if (!isWhole(at, limit, report)) continue
      checkWindow(at, limit, report)
      const label = labelOf(limit)
      if (limits.findIndex((other) => isStated(other) && labelOf(other) === label) < index) {
        const what = limit.concurrent === undefined ? 'has the same window' : 'is about calls at once'
        report(limit.concurrent === undefined ? [...at, 'window'] : at, `another limit ${what}`)
      }
      checkScope(at, limit, upstream, preset, report)
      checkBody(at, limit, upstream, report)
      checkCost(at, className, limit, upstream, report)
      checkPace(at, limit, upstream, report)
      checkAmount(at, limit, upstream, report)
    }
  }
}

function isStated({ requests, amount, window, concurrent }: LimitConfig): boolean {
  return concurrent !== undefined || ((requests ?? amount) !== undefined && window !== undefined)
}

const PER_WINDOW = ['requests', 'window', 'timezone', 'anchor', 'kind', 'cost', 'pace', 'burst', 'counts'] as const

/** Whether a limit is complete. Reports what it lacks, and what mixes the two sorts of limits (per window, and in flight). */
function isWhole(at: Path, limit: LimitConfig, report: Report): boolean {
  const { requests, amount, window, concurrent } = limit
  if (concurrent !== undefined) {
    for (const key of PER_WINDOW) {
      if (limit[key] === undefined) continue
      report([...at, key], `${key} does not go with concurrent, which counts calls in flight; write two limits`)
    }
    return true
  }
  if ((requests ?? amount) === undefined && window === undefined) report(at, 'needs requests and window, or concurrent')
  else if ((requests ?? amount) === undefined) report([...at, 'requests'], 'the key "requests" is missing')
  else if (window === undefined) report([...at, 'window'], 'the key "window" is missing')
  return isStated(limit)
}

function checkScope(
  at: Path,
  limit: LimitConfig,
  upstream: UpstreamConfig,
  preset: Preset | undefined,
  report: Report,
): void {
  const names = [limit.scope ?? []].flat()
  if (new Set(names).size < names.length) report([...at, 'scope'], 'names something twice')
  if (names.filter(isBase).length > 1) {
    report([...at, 'scope'], 'only one of account, credential and upstream: each is a part of the next')
  }
  for (const split of scopeOf(limit).splits) {
    if (!split.startsWith('{')) continue
    const paths = [...upstream.routes, ...(preset?.routes() ?? [])].map((route) => route.path)
    if (!paths.some((text) => text.includes(split))) report([...at, 'scope'], `no route has a segment ${split}`)
  }
}

function checkBody(at: Path, { when }: LimitConfig, { maxBody }: UpstreamConfig, report: Report): void {
  if (when === undefined || maxBody === undefined || maxBody > when.bodyOver) return
  report([...at, 'when', 'bodyOver'], `is never reached: maxBody lets no more than ${maxBody} bytes through`)
}

/** Finds costs above the limit, which would refuse every such call. A limit that is not enforced refuses nothing. */
function checkCost(at: Path, className: string, limit: LimitConfig, upstream: UpstreamConfig, report: Report): void {
  const { cost, enforce = true } = limit
  if (isByCall(cost)) return checkPrice(at, limit, cost, upstream, report)
  const byMethod = typeof cost === 'object' && !('bytes' in cost) ? cost : {}
  for (const method of Object.keys(byMethod))
    checkName([...at, 'cost', method], method, [...METHODS, 'default'], 'is no HTTP method, nor `default`', report)
  const allowed = allowedBy(limit, upstream.headroom)
  if (!enforce) return
  if (allowed < 1) {
    report([...at, 'headroom'], 'the headroom leaves nothing of the limit')
  } else if (typeof cost === 'number' && cost > allowed) {
    report([...at, 'cost'], `every call would cost more than the ${allowed} units that ${span(limit)} has`)
  } else if (cost === 'route') checkRouteCosts(at, className, allowed, limit, upstream, report)
  else {
    for (const [method, units] of Object.entries(byMethod))
      if (units > allowed) report([...at, 'cost', method], `is more than the ${allowed} units that ${span(limit)} has`)
  }
}

/** Finds prices that can't be computed, and reservations that can never be made. */
function checkPrice(
  at: Path,
  limit: LimitConfig,
  { response, reserve }: CostByCall,
  upstream: UpstreamConfig,
  report: Report,
): void {
  const here = [...at, 'cost', 'response']
  if (response !== undefined) {
    checkValues(here, response, report)
    checkFormula([...here, 'formula'], response, [], report)
  }
  const there = [...at, 'cost', 'reserve']
  const most = typeof reserve === 'number' ? reserve : reserve.most
  const allowed = allowedBy(limit, upstream.headroom)
  if (limit.enforce !== false && limit.window !== undefined && most > allowed) {
    report(
      there,
      `no call could be sent: ${most} units are reserved for each, and the limit allows ${allowed} per ${span(limit)}`,
    )
  }
  if (limit.pace !== undefined) report([...at, 'pace'], 'pace does not go with a cost by the answer')
  if (response === undefined && (typeof reserve === 'number' || 'missRate' in reserve)) {
    report(there, 'without a response it has to be `{ values, formula, most }` of the request')
  }
  checkReserve(there, reserve, [], report)
}

function checkPace(at: Path, limit: LimitConfig, upstream: UpstreamConfig, report: Report): void {
  const { pace, burst, window } = limit
  if (pace !== undefined && typeof window === 'string') {
    report(
      [...at, 'pace'],
      `does not go with the window ${window}: add a paced limit with a shorter window, such as 1h`,
    )
  }
  if (burst === undefined) return
  const allowed = allowedBy(limit, upstream.headroom)
  if (pace === undefined) report([...at, 'burst'], 'belongs to pace: even')
  else if (burst > allowed) {
    report([...at, 'burst'], `is more than the ${allowed} units that ${span(limit)} has, so nothing would be paced`)
  }
}

function checkRouteCosts(
  at: Path,
  className: string,
  allowed: number,
  limit: LimitConfig,
  upstream: UpstreamConfig,
  report: Report,
): void {
  for (const [index, route] of upstream.routes.entries()) {
    const isCharged = className === EVERY_CALL || (route.charges ?? [route.class]).includes(className)
    if (!isCharged || route.cost === undefined || route.cost <= allowed) continue
    const path = [...at.slice(0, 2), 'routes', index, 'cost']
    report(path, `is more than the ${allowed} units that ${span(limit)} of the ${className} limit has`)
  }
}

function span(limit: LimitConfig): string {
  return limit.window === undefined ? 'the limit' : windowLabel(limit, limit.window)
}
