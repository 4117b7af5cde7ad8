import type { Static, TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { explain, type Problem } from '../../config/problem.ts'
import { invalid } from './problem.ts'

/** Checks the body of a request against its schema. Throws a problem that lists every fault. */
export function readBody<Schema extends TSchema>(schema: Schema, body: unknown): Static<Schema> {
  const problems = problemsOf(schema, body ?? {})
  if (problems.length > 0) throw invalid('the body is not as it must be', problems)
  return (body ?? {}) as Static<Schema>
}

function problemsOf(schema: TSchema, value: unknown): Problem[] {
  const problems = Value.Errors(schema, value).flatMap((error) => explain(error, value, schema, 'json'))
  // Only the first problem of each place is told.
  return [...Map.groupBy(problems, ({ path }) => path.join('/')).values()].map(([first]) => first!)
}
