import { isIP } from 'node:net'
import Type, { type TProperties, type TSchema } from 'typebox'
import { isDecodable } from '../http/decode.ts'
import { METHODS } from '../http/node-http.ts'
import { Secret } from './secret.ts'
import { CALENDAR_UNITS, type CalendarUnit, WEEKDAYS } from '../time/calendar.ts'
import { isMadeAnew } from '../http/hop-by-hop.ts'
import { formatDuration, formatPercent, parseDuration, parseMoment, parsePercent } from './units.ts'

/** The parts that the schemas of the configuration are made of. */

// A misspelt key must be an error, not a setting that silently does nothing.
export const object = <P extends TProperties>(properties: P, options: object = {}) =>
  Type.Object(properties, { additionalProperties: false, ...options })

// Names appear in URLs, response headers, metrics and Redis keys.
const NAME_PATTERN = '^[a-z0-9][a-z0-9._-]{0,62}$'
const A_NAME = 'a name of lower-case letters, digits, ".", "_" and "-"'
/** Why a text can't be a name; undefined if it can. */
export const whyNoName = (text: string): string | undefined =>
  new RegExp(NAME_PATTERN).test(text) ? undefined : `must be ${A_NAME}`
export const name = (options: { description?: string } = {}) =>
  Type.String({
    pattern: NAME_PATTERN,
    expected: A_NAME,
    ...options,
  })
export const record = <T extends TSchema>(value: T, description: string, options: object = {}) =>
  Type.Record(Type.String(), value, {
    description,
    propertyNames: { pattern: NAME_PATTERN, expected: `${A_NAME}, beginning with a letter or digit, 63 at most` },
    ...options,
  })

/** A JSON pointer (RFC 6901) to something inside of a body. */
export const POINTER_PATTERN = '^(/([^~/]|~0|~1)*)+$'

/** A whole number of units of a limit. */
export const units = (description: string, minimum = 1) =>
  Type.Integer({ minimum, maximum: 0xffff_ffff, expected: `a whole number, at least ${minimum}`, description })

export const whole = (
  description: string,
  bounds: { readonly minimum?: number; readonly maximum?: number; readonly default?: number },
) => Type.Integer({ ...bounds, description })

export const flag = (description: string, defaultValue: boolean) => Type.Boolean({ default: defaultValue, description })

/** A text that is not empty. */
export const text = (description: string) => Type.String({ minLength: 1, description })

/** A duration. By default from 1 ms to 24 h, which every timer can take. */
export const duration = (
  description: string,
  { min = '1ms', max = '24h', ...options }: { default?: string; min?: string; max?: string } = {},
) =>
  Type.Codec(
    Type.Refine(
      Type.String({
        pattern: '^\\d+(ms|s|m|h)$',
        description: `${description} Allowed: ${min} to ${max}.`,
        expected: 'a duration such as 500ms, 30s, 5m or 1h',
        ...options,
      }),
      (text) => parseDuration(text) >= parseDuration(min) && parseDuration(text) <= parseDuration(max),
      () => `must be from ${min} to ${max}`,
    ),
  )
    .Decode(parseDuration)
    .Encode(formatDuration)

/** The window of a limit: a duration, or a unit of the calendar. */
export const limitWindow = (description: string, min: string) =>
  Type.Codec(
    Type.Refine(
      Type.String({
        pattern: `^(\\d+(ms|s|m|h)|${CALENDAR_UNITS.join('|')})$`,
        description: `${description} Allowed: ${min} to 24h, and ${inWords(CALENDAR_UNITS, 'and')} of the calendar.`,
        expected: `a duration such as 30s, 5m or 24h, or ${inWords(CALENDAR_UNITS, 'or')}`,
      }),
      (text) => isCalendarUnit(text) || (parseDuration(text) >= parseDuration(min) && parseDuration(text) <= DAY_MS),
      () => `must be from ${min} to 24h, or ${inWords(CALENDAR_UNITS, 'or')}`,
    ),
  )
    .Decode((text): number | CalendarUnit => (isCalendarUnit(text) ? text : parseDuration(text)))
    .Encode((window) => (typeof window === 'number' ? formatDuration(window) : window))

const DAY_MS = 24 * 3_600_000

function isCalendarUnit(text: string): text is CalendarUnit {
  return (CALENDAR_UNITS as readonly string[]).includes(text)
}

function inWords(names: readonly string[], word: 'and' | 'or'): string {
  return `${names.slice(0, -1).join(', ')} ${word} ${names.at(-1)}`
}

/** What else a window of the calendar is told by. */
export const calendarProperties = {
  timezone: Type.Optional(
    Type.String({
      description:
        'Of a calendar window: whose midnight counts, as a name of the IANA database such as Europe/Berlin. Default: UTC.',
      expected: 'a time zone such as Europe/Berlin',
    }),
  ),
  anchor: Type.Optional(
    Type.Union([Type.Integer(), Type.Enum([...WEEKDAYS])], {
      description:
        'When a calendar window begins. month: the day, 1 (default) to 31, in a shorter month its last day; week: monday (default) to sunday; day: the hour, 0 (default) to 23.',
      expected: 'a day of the month (1 to 31), a day of the week such as monday, or an hour (0 to 23)',
    }),
  ),
}

const HOST_PATTERN = '^(\\[[0-9A-Fa-f:.]+\\]|[^\\s.*:/?#@%\\[\\]\\\\]+(\\.[^\\s.*:/?#@%\\[\\]\\\\]+)*\\.?)$'
const A_HOST = 'a host alone, such as api.example.com, 10.0.0.5 or [::1]: without "https://", port, path and "*"'

/** A host that calls may name. What stands for none would be compared as an empty text, and a CA for that is good for all hosts. */
export const host = Type.Refine(
  Type.String({ pattern: HOST_PATTERN, expected: A_HOST }),
  isHost,
  () => `must be ${A_HOST}`,
)

function isHost(text: string): boolean {
  const pattern = new RegExp(HOST_PATTERN)
  return pattern.test(text) && URL.canParse(`http://${text}`) && pattern.test(new URL(`http://${text}`).hostname)
}

const AN_ADDRESS = 'an address or a name of this machine, such as 127.0.0.1, 0.0.0.0, :: or localhost'

/** Where to listen. */
export const ownHost = (description: string) =>
  Type.Refine(
    Type.String({ default: '127.0.0.1', description, expected: AN_ADDRESS }),
    (text) => isIP(text) !== 0 || (isHost(text) && !text.startsWith('[')),
    () => `must be ${AN_ADDRESS}`,
  )

/** An IP address, or a network in CIDR notation. */
export const addressRange = (description: string) =>
  Type.Refine(
    Type.String({ description, expected: 'an IP address or a network such as 10.0.0.0/8' }),
    isAddressRange,
    () => 'must be an IP address or a network such as 10.0.0.0/8',
  )

function isAddressRange(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const family = isIP(address)
  if (family === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) > 0 && Number(bits) <= (family === 4 ? 32 : 128))
}

export const percent = (description: string, defaultValue?: string) =>
  Type.Codec(
    Type.String({
      pattern: '^(100(\\.0+)?|\\d{1,2}(\\.\\d+)?)%$',
      description,
      expected: 'a percentage such as 20%',
      ...(defaultValue === undefined ? {} : { default: defaultValue }),
    }),
  )
    .Decode(parsePercent)
    .Encode(formatPercent)

export const hidden = (text: Type.TString) =>
  Type.Codec(text)
    .Decode((text) => new Secret(text))
    .Encode(() => '[redacted]')

export const secret = (description: string) => hidden(text(description))

/** The name of a parameter, which is written into the query as it is. */
export const queryParameter = (description = 'Its name.') =>
  Type.String({
    pattern: '^[A-Za-z0-9._~-]+$',
    expected: 'a name of letters, digits, ".", "_", "~" and "-"',
    description,
  })

/** What keys have to be where each is the name of a header. */
export const HEADER_NAMES = { pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", expected: 'a header name' }

export const headerName = (description: string, options: object = {}) =>
  Type.String({ ...HEADER_NAMES, description, ...options })

/**
 * The name of a header that the gateway adds. It must not frame the message or belong to the connection, or every call
 * would fail.
 */
export const addedHeader = (description: string, options: object = {}) =>
  Type.Refine(
    headerName(description, options),
    (name) => !isMadeAnew(name.toLowerCase()),
    () => 'must be the name of a header that can be added to a request',
  )

/**
 * A URL. One that the pattern accepts and `URL` does not, such as one with port 99999 or a stray "%", would fail only
 * when it is used. So would one with port 0.
 */
export const url = (expected: string, options: object) =>
  Type.Refine(
    Type.String({ ...options, expected }),
    (text) => !text.includes('://') || (isDecodable(text) && hasPort(text)),
    () => `must be ${expected}`,
  )

export const httpUrl = (description: string) =>
  url('an http:// or https:// URL without user, query or fragment', {
    pattern: '^https?://[^\\s\\\\/?#@]+(/[^\\s\\\\?#]*)?$',
    description,
  })

export const port = (description: string, defaultValue: number) =>
  Type.Integer({ minimum: 0, maximum: 65_535, default: defaultValue, description })

/** Whether a text is a URL that one can connect to, as far as its port goes. */
export function hasPort(text: string): boolean {
  return URL.canParse(text) && new URL(text).port !== '0'
}

const HOST_AND_PORT = 'host:port, with a port from 1 to 65535'

export const hostAndPort = Type.Refine(
  Type.String({ pattern: '^(\\[[^\\]]+\\]|[^\\s:/?#@]+):\\d{1,5}$', expected: HOST_AND_PORT }),
  // A URL takes no zone of an IPv6 address.
  (text) => hasPort(`http://${text.replace(/%[^\]]+\]/, ']')}`),
  () => `must be ${HOST_AND_PORT}`,
)

export const moment = (description: string) =>
  Type.Codec(
    Type.Refine(
      Type.String({
        pattern: '^\\d{4}-\\d{2}-\\d{2}(T\\d{2}:\\d{2}(:\\d{2}(\\.\\d+)?)?(Z|[+-]\\d{2}:?\\d{2}))?$',
        expected: 'a day such as 2027-01-31, or a time such as 2027-01-31T18:00Z',
        description,
      }),
      (text) => !Number.isNaN(parseMoment(text)),
      () => 'must be a day or a time that exists',
    ),
  )
    .Decode(parseMoment)
    .Encode((ms) => new Date(ms).toISOString())

const AN_ENTRY = 'a host, *.host, or the beginning of a URL, without "*", user, query and fragment'

/** What no call can match is refused. Otherwise it would block nothing. */
const accessEntry = Type.Refine(
  url(AN_ENTRY, { pattern: '^(https?://[^\\s*\\\\/?#@]+(/[^\\s*\\\\?#]*)?|\\[[^\\]]+\\]|(\\*\\.)?[^\\s*:/?#@]+)$' }),
  (text) => text.includes('://') || URL.canParse(`http://${text.replace('*.', '')}`),
  () => `must be ${AN_ENTRY}`,
)

export const networkAccess = (whose: string) =>
  Type.Optional(
    object(
      {
        allowed: Type.Optional(
          Type.Array(accessEntry, { description: 'Nothing else may be reached. Default, and if empty: everything.' }),
        ),
        blocked: Type.Optional(Type.Array(accessEntry, { description: 'May not be reached, even if allowed.' })),
      },
      { description: `${whose}: exact host, *.host, or URL prefix; blocked wins, and every list must allow it.` },
    ),
  )

export const method = Type.Refine(
  Type.String({ pattern: '^[A-Z][A-Z-]*$', expected: 'an HTTP method in capitals, such as GET' }),
  (text) => METHODS.includes(text),
  () => 'must be an HTTP method that a server can receive, such as GET',
)

/** Calls are compared without parameters (`;…`), and those with dot segments are refused: a path that has them would match none. */
export const ROUTE_PATH = '^(?!.*/(\\.|%2[Ee]){1,2}(/|$))/([^{}*?#;]|\\{[^{}*?#/]+\\}(?!\\*))*\\*?$'

export const routePath = Type.String({
  pattern: ROUTE_PATH,
  description:
    'Path below the upstream’s URL; `{name}` stands for one segment or a part of it, a final `*` for the rest. `/admin/*` takes `/admin`, too, where it stands in paths of a client, and not where it is a route.',
  expected:
    'a path that begins with "/", without query, ";" and the segments "." and "..", with "*" only at its end, not behind "}", and braces only as {name}',
})
