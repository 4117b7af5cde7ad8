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

it('says what it expects wherever a message can not be made of the rule itself', () => {
  const lacking = [...silentRules(ConfigSchema, 'config'), ...silentRules(ClientScopeSchema, 'client')]
  expect(lacking).toEqual([])
})

it('requires one of something where it requires a number: it is told that it must not be empty', () => {
  const least = JSON.stringify([ConfigSchema, ClientScopeSchema]).matchAll(/"min(?:Items|Length|Properties)":(\d+)/g)
  expect(new Set([...least].map(([, number]) => number))).toEqual(new Set(['1']))
})

/**
 * Places of rules that lack `expected`, by which a message tells of them. Of the alternatives of a union only mappings are told of: by
 * what is in them.
 */
function* silentRules(schema: object, at: string): Generator<string> {
  const rules = ['anyOf', 'maxLength', 'pattern'].filter((rule) => rule in schema)
  if (rules.length > 0 && !('expected' in schema)) yield `${at}: ${rules.join()}`
  for (const [name, value] of Object.entries(schema)) {
    if (name === 'anyOf') {
      for (const { properties = {} } of value as Member[]) yield* rulesOfAll(properties, at)
    } else if (/^(patternP|p)roperties$/.test(name)) yield* rulesOfAll(value as object, at)
    else if (name === 'items' || name === 'propertyNames') yield* silentRules(value as object, `${at}[]`)
  }
}

function* rulesOfAll(schemas: object, at: string): Generator<string> {
  for (const [name, schema] of Object.entries(schemas)) yield* silentRules(schema as object, `${at}.${name}`)
}

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
