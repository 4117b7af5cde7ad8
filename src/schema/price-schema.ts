import Type, { type StaticDecode, type TArrayOptions, type TSchema } from 'typebox'
import { fractionOf, roundedUp, times } from './fraction.ts'
import { duration, headerName, object, percent, POINTER_PATTERN, text, whole } from './schema-parts.ts'

/** What a call costs: in units, by its answer; and in money. */

const valueName = {
  pattern: '^[a-z_][a-zA-Z0-9_]*$',
  expected: 'a name of letters, digits and "_", beginning with a lower-case letter or "_", as formulas have it',
}
/** The number at a pointer is looked for while the body passes, where `*` would be a name like any other, and be found nowhere. */
const A_PLACE = 'a JSON pointer such as /usage/total_tokens, without "*" for every member'
const place = Type.String({
  pattern: POINTER_PATTERN.replace('([^~/]', '(?!\\*(?:/|$))([^~/]'),
  expected: A_PLACE,
})

const formula = Type.Optional(
  text('How the values make units: + - * /, parentheses, max(…) and min(…). Default: their sum. Rounded up.'),
)

const places = Type.Union([place, Type.Array(place, { minItems: 1 })], {
  description: 'A JSON pointer into the body, or several of which the first that is there counts.',
  expected: `${A_PLACE}, or a list of them`,
})

const otherwise = Type.Optional(
  Type.Number({ minimum: 0, description: 'The value where it is missing. Default: then the price is not known.' }),
)

const values = <T extends TSchema>(value: T, description: string) =>
  Type.Record(Type.String(), value, { description, minProperties: 1, propertyNames: valueName })

export const ResponseSchema = object(
  {
    values: values(
      object({
        header: Type.Optional(headerName('A response header, or a trailer.')),
        body: Type.Optional(places),
        default: otherwise,
      }),
      'What the answer says, by name. Of a stream of events, or of lines of JSON, the last one that has it counts.',
    ),
    formula,
  },
  {
    description:
      'What a call costs, by its answer. Default: what was reserved by the request, for vendors that count that and not the outcome.',
  },
)

/** `most` makes the schema of what a call can cost at most, in the unit of the limit. */
export const reserveSchema = <T extends TSchema>(most: (description: string) => T, expected: string) =>
  Type.Union(
    [
      most('That much for every call: the most that one can cost.'),
      // It comes before the other, which would take a `missRate` for a key that it does not know.
      object({
        missRate: percent('At most this share of the calls may cost more than was reserved: from 0.2% to 50%.'),
        most: most('The most that is reserved, and what is reserved until enough was learned.'),
      }),
      object({
        values: Type.Optional(
          values(object({ body: places, default: otherwise }), 'What the JSON of the request’s body says, by name.'),
        ),
        formula: Type.Optional(
          text('How the values, and `bytes` of the request’s body, make units. Default: the sum of the values.'),
        ),
        most: most('The most that is reserved, and what is reserved where the request does not tell.'),
      }),
    ],
    {
      description:
        'What is charged from the dispatch until the price is known. It is learned by route and client where it has a missRate.',
      expected: `${expected}, \`{ values, formula, most }\` of the request, or \`{ missRate, most }\` to learn it`,
    },
  )

export const DEFAULT_FINISH_MS = 30_000

export const finish = Type.Optional(
  duration(
    'How long the gateway reads on after the client has left, to learn the price. Then the answer is broken off, and keeps what was reserved. 0s: at once. Default: 30s.',
    { min: '0s', max: '1h' },
  ),
)

export const statuses = (options: TArrayOptions) =>
  Type.Array(
    Type.Union([Type.Integer({ minimum: 200, maximum: 599 }), Type.Enum(['2xx', '3xx', '4xx', '5xx'])], {
      expected: 'a status from 200 to 599, or 2xx, 3xx, 4xx or 5xx',
    }),
    options,
  )

/** So many units of a limit that counts money are one of its currency: the smallest amount that is counted is a billionth. */
export const UNITS_OF_MONEY = 1_000_000_000
const DECIMALS = 9
/** More is not counted exactly: sums of a few such limits stay below 2^53 units. */
const MOST_MONEY = 4_000_000

const isMoney = (given: number | string): boolean => {
  const { over, under } = fractionOf(given)
  return (
    under > 0n && over >= 0n && (over * BigInt(UNITS_OF_MONEY)) % under === 0n && over <= BigInt(MOST_MONEY) * under
  )
}
const NO_MONEY = `must be from 0 to ${MOST_MONEY}, with at most ${DECIMALS} digits after the point, which is what is counted`

const money = (description: string, isWanted: (given: number | string) => boolean, message: string) =>
  Type.Refine(
    Type.Union([Type.Number(), Type.String({ pattern: '^\\d+(\\.\\d+)?$' })], {
      description,
      expected: 'an amount such as 0.15, without a sign of its currency',
    }),
    isWanted,
    () => message,
  )

/** An amount of money, which is read as units: billionths of its currency. */
export const amount = (description: string) =>
  Type.Codec(
    money(
      description,
      (given) => isMoney(given) && Number(given) > 0,
      NO_MONEY.replace('from 0', 'more than 0 and up'),
    ),
  )
    .Decode((given) => Number(roundedUp(times(fractionOf(given), fractionOf(UNITS_OF_MONEY)))))
    .Encode((units) => units / UNITS_OF_MONEY)

export const currency = (description: string) =>
  Type.String({ pattern: '^[a-z]{3}$', expected: 'a currency in three lower-case letters, such as usd', description })

export const MoneySchema = object(
  {
    unit: currency('The currency of the prices. Nothing is converted.'),
    response: Type.Optional(ResponseSchema),
    per: whole('Of how many of a value the list has the price: 1000000 for prices of a million tokens.', {
      minimum: 1,
      default: 1,
    }),
    list: Type.Optional(
      Type.Record(
        Type.String({ minLength: 1 }),
        values(
          money('A price, of nothing else than decimal digits.', isMoney, NO_MONEY),
          'Prices, by what they are for.',
        ),
        {
          minProperties: 1,
          description:
            'Prices by model, or by the name that a route says: of each value of the answer, and of the `call` itself. A `*` at the end of a model stands for its rest; `default` is for all others. A formula has them as inputPrice where the value is input. Without the list the formula makes money.',
        },
      ),
    ),
    model: Type.String({
      pattern: POINTER_PATTERN,
      expected: 'a JSON pointer such as /model',
      default: '/model',
      description: 'Where the JSON of the request’s body names the model.',
    }),
    reserve: Type.Optional(reserveSchema(amount, 'an amount')),
    finish,
    free: statuses({ default: ['4xx', '5xx'], description: 'Statuses of answers that cost nothing.' }),
  },
  { description: 'What a call costs in money, for limits and budgets that have an amount. Default: nothing.' },
)

export type MoneyConfig = StaticDecode<typeof MoneySchema>

/** Units of a limit as people read them: an amount of its currency, where it counts money. */
export function amountOf({ unit }: { readonly unit?: string | undefined }, units: number): number {
  return unit === undefined ? units : units / UNITS_OF_MONEY
}

/** The same with what is counted, for messages: `5 requests`, `0.15 usd`. */
export function amountText(limit: { readonly unit: string | undefined }, units: number): string {
  return `${amountOf(limit, units)} ${limit.unit ?? 'requests'}`
}

/** The name that a formula has for the price of a value. */
export const priceName = (name: string): string => `${name}Price`

/** The names of prices that a formula may use. */
export function namesOf({ list, response }: MoneyConfig): string[] {
  if (list === undefined) return []
  return [...Object.keys(response?.values ?? {}), 'call'].map(priceName)
}

/** By default, each value by its price. */
export function formulaOf({ list, response }: MoneyConfig): string {
  if (response?.formula !== undefined) return response.formula
  const names = Object.keys(response?.values ?? {})
  return list === undefined
    ? names.join(' + ')
    : ['callPrice', ...names.map((name) => `${name} * ${priceName(name)}`)].join(' + ')
}
