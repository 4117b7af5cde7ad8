/** A place in JSON: the names of a JSON pointer (RFC 6901), in which `*` stands for every member of a list or object. */
export type Pointer = readonly string[]

export function pointerOf(text: string): Pointer {
  const names = text.slice(1).split('/')
  return names.map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** Whether a value at that place passes the test. */
export function someAt(value: unknown, pointer: Pointer, test: (value: unknown) => boolean, at = 0): boolean {
  if (at === pointer.length) return test(value)
  if (typeof value !== 'object' || value === null) return false
  const name = pointer[at]!
  if (name === '*') return Object.values(value).some((member) => someAt(member, pointer, test, at + 1))
  return Object.hasOwn(value, name) && someAt((value as Record<string, unknown>)[name], pointer, test, at + 1)
}
