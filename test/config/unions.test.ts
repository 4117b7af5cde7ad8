import { Priority, type TSchema } from 'typebox/type'
import { expect, it } from 'vitest'
import { ClientScopeSchema } from '../../src/schema/client-schema.ts'
import { ConfigSchema } from '../../src/schema/schema.ts'

type Member = TSchema & {
  readonly type?: string
  readonly required?: readonly string[]
  readonly properties?: object
  readonly additionalProperties?: unknown
}

it('reads a value by the same member of a union, whether or not the library sorts the members first', () => {
  const unions = [...unionsIn(ConfigSchema, 'config'), ...unionsIn(ClientScopeSchema, 'client')]
  expect(unions.length).toBeGreaterThan(10)
  const matters = unions.filter(({ members }) => {
    const sorted = Priority([...members])
    if (sorted.every((member, n) => member === members[n])) return false
    return members.some((one, n) => members.slice(n + 1).some((other) => !areApart(one, other)))
  })
  expect(matters.map(({ at }) => at)).toEqual([])
})

/**
 * Whether no value of the second can be read as one of the first, whose member is asked before: they are of two JSON types, or the
 * second lacks what the first requires. What the first does not know is no reason, because a value is cleaned of that.
 */
function areApart(first: Member, second: Member): boolean {
  const { properties = {} } = second
  return first.type !== second.type || (first.required ?? []).some((name) => !(name in properties))
}

function* unionsIn(schema: object, at: string): Generator<{ at: string; members: readonly Member[] }> {
  if ('anyOf' in schema) yield { at, members: schema.anyOf as readonly Member[] }
  for (const [name, value] of Object.entries(schema)) {
    if (typeof value === 'object' && value !== null) yield* unionsIn(value, `${at}/${name}`)
  }
}
