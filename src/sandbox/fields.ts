import Type, { type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { isObject } from '../schema/json.ts'

/** A setting that makes no sense; the message names the field. */
export class FieldError extends Error {
  constructor(path: readonly string[], problem: string) {
    super(path.length === 0 ? problem : `${path.join('.')}: ${problem}`)
    this.name = 'FieldError'
  }
}

/**
 * Gives `value` back if it fits; else throws a `FieldError` for the first field that does not. Every schema that is not of
 * an object has `expected`, the text that says what fits. Keys that are not in the schema are refused: misspelt, they would silently do nothing.
 */
export function checkFields<S extends TSchema>(schema: S, value: unknown, path: readonly string[] = []): Static<S> {
  if (!Type.IsObject(schema)) {
    const { expected } = schema as { expected?: string }
    if (!Value.Check(schema, value)) throw new FieldError(path, `must be ${expected}`)
    return value
  }
  if (!isObject(value)) throw new FieldError(path, 'must be an object')
  const known = Object.keys(schema.properties)
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw new FieldError([...path, key], `unknown key; known here: ${known.join(', ')}`)
  }
  for (const [key, field] of Object.entries(schema.properties)) {
    if (value[key] !== undefined || schema.required?.includes(key)) checkFields(field, value[key], [...path, key])
  }
  return value as Static<S>
}
