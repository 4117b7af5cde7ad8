import Type from 'typebox'
import { HEADER_NAMES, object, POINTER_PATTERN } from './schema-parts.ts'

const anyStatus = Type.Integer({ minimum: 200, maximum: 599 })
const scalar = Type.Union([Type.String(), Type.Number(), Type.Boolean()])

export const DisguiseSchema = object(
  {
    status: Type.Optional(
      Type.Union([anyStatus, Type.Array(anyStatus, { minItems: 1 })], {
        description: 'The status, or several. Default: any.',
        expected: 'a status from 200 to 599, or a list of them',
      }),
    ),
    classes: Type.Optional(
      Type.Array(Type.String(), { minItems: 1, description: 'Only answers to calls of these classes. Default: all.' }),
    ),
    header: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1 })], {
          expected: 'a text, or a list of texts',
        }),
        {
          minProperties: 1,
          description: 'Response headers and their values, or lists of values; capitals do not matter.',
          propertyNames: HEADER_NAMES,
        },
      ),
    ),
    body: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Union([scalar, Type.Array(scalar, { minItems: 1 })], { expected: 'a value, or a list of values' }),
        {
          minProperties: 1,
          description:
            'JSON pointers into the body and their values, or lists of values; `*` stands for every member. The body is held until it is whole, for a second and 64 KiB at most; a longer or slower one is passed on.',
          propertyNames: { pattern: POINTER_PATTERN, expected: 'a JSON pointer such as /error' },
        },
      ),
    ),
  },
  { description: 'All that is stated must be so.' },
)
