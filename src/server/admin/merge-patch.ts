import { isObject } from '../../schema/json.ts'

/**
 * Applies a merge patch (RFC 7396 §2): what is null is removed, objects are merged at any depth, and everything else, lists
 * included, is replaced as a whole.
 */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key)
    else merged.set(key, mergePatch(merged.get(key), value))
  }
  return Object.fromEntries(merged)
}
