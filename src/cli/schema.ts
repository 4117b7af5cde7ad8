import { jsonSchema } from '../schema/json-schema.ts'
import { jsonOf } from './printable.ts'

export function schema(): void {
  process.stdout.write(jsonOf(jsonSchema()))
}
