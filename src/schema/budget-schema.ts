import Type, { type StaticDecode } from 'typebox'
import { amount, currency } from './price-schema.ts'
import { calendarProperties, limitWindow, name, object, percent, whole } from './schema-parts.ts'

/** What a client, a team or an organisation may spend: calls, or money. */
const BudgetEntrySchema = Type.Refine(
  object({
    requests: Type.Optional(whole('How many calls.', { minimum: 1, maximum: 0xffff_ffff })),
    amount: Type.Optional(amount('Instead of requests: how much money, by `price` of the upstreams.')),
    unit: Type.Optional(currency('The currency of the amount.')),
    window: limitWindow('In any window of that length, or in each of the calendar.', '1s'),
    ...calendarProperties,
    enforce: Type.Optional(
      Type.Boolean({ description: 'false: counted, shown and warned of, but nothing is refused. Default: true.' }),
    ),
    warnAt: Type.Optional(percent('So much of it is used when the log warns, once each time. Default: 80%.')),
  }),
  ({ requests, amount, unit }) =>
    (requests === undefined) === (amount !== undefined) && (amount === undefined) === (unit === undefined),
  () => 'needs either requests, or amount and unit',
)

export const budget = (whose: string) =>
  Type.Optional(
    Type.Array(BudgetEntrySchema, {
      minItems: 1,
      description: `${whose}, over all upstreams and gateways. Default: any number.`,
    }),
  )

export const TeamSchema = object({
  organisation: Type.Optional(name({ description: 'The organisation that it belongs to. Default: none.' })),
  budget: budget('What its clients may use together'),
})

export const OrganisationSchema = object({ budget: budget('What the clients of its teams may use together') })

export type BudgetConfig = readonly StaticDecode<typeof BudgetEntrySchema>[]
