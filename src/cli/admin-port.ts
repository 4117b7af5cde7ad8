import { findConfig } from '../config/find.ts'
import { HEADER_VALUE } from '../http/fields.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import { CommandError } from './command-error.ts'

/** The options by which commands find the admin port of a running gateway. */
export interface AdminOptions {
  readonly config?: string
  readonly url?: string
  readonly token?: string
}

export interface AdminPort {
  readonly url: string
  readonly token: string | undefined
}

/** The admin port that an option names, or else that of the configuration. With the option no configuration is read. */
export async function adminPortOf({ config, url, token }: AdminOptions): Promise<AdminPort> {
  if (url !== undefined) {
    // The messages name the URL, and so would show a password in it.
    if (!/^https?:\/\/[^@?#]+$/.test(url) || !URL.canParse(url))
      throw new CommandError('--url must be a URL such as http://127.0.0.1:9090, without user, query or fragment')
    return { url: url.replace(/\/$/, ''), token }
  }
  const found = await findConfig(config, { ignores: ([first]) => first !== 'admin' })
  const admin = found?.config.admin
  const { host, port } = admin ?? { host: '127.0.0.1', port: 9090 }
  // Any of the tokens may read.
  const configured = admin?.token ?? Object.values(admin?.tokens ?? {})[0]
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`, token: token ?? configured?.reveal() }
}

/** Those of the options that were given, as the query of a list. */
export function queryOf<Name extends string>(
  options: Readonly<Partial<Record<Name, string>>>,
  names: readonly Name[],
): URLSearchParams {
  return new URLSearchParams(
    names.flatMap((name) => {
      const value = options[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )
}

/** Sends a GET to the admin port and gives its answer, a list. Throws a `CommandError` if it can't be reached, refuses, or is none. */
export async function askAdmin<Answer extends { readonly data: readonly unknown[] }>(
  { url, token }: AdminPort,
  path: string,
): Promise<Answer> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  // The error of `fetch` would show the whole token.
  if (token !== undefined && !HEADER_VALUE.test(headers['authorization']!))
    throw new CommandError(
      'the admin token holds a character that no header value may have, such as a line end: mend admin.token or --token',
    )
  const response = await fetch(url + path, { headers }).catch((error: Error) => {
    const why = error.cause instanceof Error ? error.cause.message : error.message
    throw new CommandError(`no gateway answers on ${url}: ${why}; name its admin port with --url, or its --config`)
  })
  if (response.status === 401)
    throw new CommandError(
      `${url} answered 401: it wants its admin.token or one of admin.tokens, from its --config or with --token`,
    )
  if (response.status === 503)
    throw new CommandError('store unreachable: the gateway can’t ask its quota store, and refuses calls')
  const answer = parsedJson(await response.text().catch(() => ''))
  const { data, detail } = isObject(answer) ? answer : {}
  if (response.ok && Array.isArray(data)) return answer as Answer
  if (!response.ok && typeof detail === 'string') throw new CommandError(detail)
  throw new CommandError(
    `${url}${path} answered ${response.status}, but not as a gateway does: name its admin port with --url, or its --config`,
  )
}

/** `ready`, or why the gateway is not ready, or what its calls have to do without. */
export async function readiness({ url }: AdminPort): Promise<string> {
  const response = await fetch(`${url}/readyz`).catch(() => undefined)
  const { status, reason, degraded } = ((await response?.json().catch(() => undefined)) ?? {}) as Record<string, string>
  if (reason !== undefined) return `${status}: ${reason}`
  return degraded === undefined ? 'ready' : `degraded: ${degraded}`
}
