import { Secret } from './secret.ts'

/** The depth to which a difference is named: `upstreams.harness.retry` is precise enough. */
const NAMED_DEPTH = 3

/**
 * The places where two configurations differ, as paths of keys without values. Secrets are compared by their values.
 */
export function differences(a: unknown, b: unknown): string[] {
  const places = new Set<string>()
  for (const path of paths(a, b, [])) places.add(path.slice(0, NAMED_DEPTH).join('.'))
  return [...places]
}

/** Compares a hundred thousand values in some milliseconds, since a reload does it between calls. */
export function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (!isPlain(a) || !isPlain(b) || Array.isArray(a) !== Array.isArray(b)) return isSameSecret(a, b)
  for (const key in a) if (!isSame(a[key], b[key])) return false
  for (const key in b) if (!(key in a) && b[key] !== undefined) return false
  return true
}

/**
 * Returns `wanted`, in which every part that equals that of `inForce` is replaced by it. So a secret that follows its
 * source stays the same object.
 */
export function withKept<T>(inForce: unknown, wanted: T): T {
  if (isSame(inForce, wanted)) return inForce as T
  if (!isPlain(inForce) || !isPlain(wanted) || Array.isArray(wanted)) return wanted
  return Object.fromEntries(Object.entries(wanted).map(([key, value]) => [key, withKept(inForce[key], value)])) as T
}

/** Gives secrets the values that they have in `found`, where they are of the same references there. */
export function takeValues(inForce: unknown, found: unknown): void {
  if (inForce instanceof Secret && found instanceof Secret) {
    if (inForce.template === undefined || !isSameSource(inForce, found)) return
    inForce.expiresAt = found.expiresAt
    inForce.replace(found.reveal(), found.next?.reveal(), found.next?.expiresAt)
  } else if (isPlain(inForce) && isPlain(found)) {
    for (const key in inForce) takeValues(inForce[key], found[key])
  }
}

function* paths(a: unknown, b: unknown, path: readonly string[]): Generator<readonly string[]> {
  if (Object.is(a, b)) return
  if (!isPlain(a) || !isPlain(b) || Array.isArray(a) !== Array.isArray(b)) {
    if (!isSameSecret(a, b)) yield path
    return
  }
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)]))
    if (!isSame(a[key], b[key])) yield* paths(a[key], b[key], [...path, key])
}

function isSameSecret(a: unknown, b: unknown): boolean {
  return a instanceof Secret && b instanceof Secret && isSameSource(a, b) && a.reveal() === b.reveal()
}

function isSameSource({ template: a }: Secret, { template: b }: Secret): boolean {
  return a?.text === b?.text && a?.folder === b?.folder
}

function isPlain(value: unknown): value is Record<string, unknown> {
  // Objects of other classes can hold more than their keys show.
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === Array.prototype || prototype === null
}
