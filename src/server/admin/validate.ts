import type { Static, TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { explain, type Problem } from '../../config/problem.ts'
import { invalid } from './problem.ts'

/** Checks the body of a request against its schema. Throws a problem that lists every fault. */
export function readBody<Schema extends TSchema>(schema: Schema, body: unknown): Static<Schema> {
  check(schema, body ?? {}, 'the body is not as it must be')
  return (body ?? {}) as Static<Schema>
}

/** Throws a problem with this detail that lists every fault of a value, unless it has none. */
export function check(schema: TSchema, value: unknown, detail: string): void {
  const problems = problemsOf(schema, value)
  if (problems.length > 0) throw invalid(detail, problems)
}

function problemsOf(schema: TSchema, value: unknown): Problem[] {
  const problems = Value.Errors(schema, value).flatMap((error) => explain(error, value, schema, 'json'))
  // Only the first problem of each place is told.
  return [...Map.groupBy(problems, ({ path }) => path.join('/')).values()].map(([first]) => first!)
}
