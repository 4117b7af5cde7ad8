import { jsonSchema } from '../schema/json-schema.ts'

export function schema(): void {
  process.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
}
