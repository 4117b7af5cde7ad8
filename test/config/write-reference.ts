/** Writes docs/reference.md anew, from the schema. */
import { readFileSync, writeFileSync } from 'node:fs'
import { format, type FormatConfig } from 'oxfmt'
import { jsonSchema } from '../../src/schema/json-schema.ts'
import { referenceOf, type Schema } from './reference.ts'

export const REFERENCE = new URL('../../docs/reference.md', import.meta.url)

/** As `npm run format` leaves it. */
export async function reference(): Promise<string> {
  const schema = jsonSchema() as Schema
  const options = JSON.parse(readFileSync(new URL('../../.oxfmtrc.json', import.meta.url), 'utf8')) as FormatConfig
  return (await format('reference.md', referenceOf(schema), options)).code
}

if (import.meta.main) writeFileSync(REFERENCE, await reference())
