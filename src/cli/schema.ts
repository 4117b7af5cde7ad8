import { jsonSchema } from '../config/json-schema.ts'

export function schema(): void {
  process.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
}
