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

/** Whether no value can be of both: of two JSON types, or of two closed objects one of which lacks what the other requires. */
function areApart(one: Member, other: Member): boolean {
  return one.type !== other.type || lacks(one, other) || lacks(other, one)
}

function lacks({ properties, additionalProperties }: Member, { required = [] }: Member): boolean {
  return properties !== undefined && additionalProperties === false && required.some((name) => !(name in properties))
}

function* unionsIn(schema: object, at: string): Generator<{ at: string; members: readonly Member[] }> {
  if ('anyOf' in schema) yield { at, members: schema.anyOf as readonly Member[] }
  for (const [name, value] of Object.entries(schema)) {
    if (typeof value === 'object' && value !== null) yield* unionsIn(value, `${at}/${name}`)
  }
}
