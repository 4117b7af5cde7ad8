import { ConfigSchema } from './schema.ts'

/** The JSON Schema by which editors complete and check a configuration file. */
export function jsonSchema(): object {
  const schema = forEditors(JSON.parse(JSON.stringify(ConfigSchema))) as object
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'Sluice configuration', ...schema }
}

/** Removes keys with a default from the required ones, and removes our own annotations, which are no keywords. */
function forEditors(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(forEditors)
  if (typeof value !== 'object' || value === null) return value
  const { expected: _, ...schema } = value as Record<string, unknown>
  const properties = schema['properties'] as Record<string, { default?: unknown }> | undefined
  const required = schema['required']
  if (Array.isArray(required) && properties !== undefined) {
    const needed = required.filter((name: string) => properties[name]?.default === undefined)
    if (needed.length > 0) schema['required'] = needed
    else delete schema['required']
  }
  if (isParticular(schema)) return { anyOf: [schema, REFERENCE] }
  return Object.fromEntries(Object.entries(schema).map(([key, inner]) => [key, forEditors(inner)]))
}

/** A scalar may be a reference, or have one in it, which is a text until it is resolved. */
const REFERENCE = { type: 'string', pattern: '\\$\\{[^}]+\\}' }

/** Whether it takes some scalars only, so that a reference would be marked as a mistake. */
function isParticular({ type, pattern, enum: words }: Record<string, unknown>): boolean {
  if (type === 'string') return pattern !== undefined
  return type === 'integer' || type === 'number' || type === 'boolean' || Array.isArray(words)
}
