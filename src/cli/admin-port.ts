import { findConfig, type FoundConfig } from '../config/find.ts'
import { ConfigError } from '../config/problem.ts'
import { HEADER_VALUE } from '../http/fields.ts'
import { hostToReach } from '../net/address.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import { referencesIn } from '../secrets/references.ts'
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
  /** Where the token is from. */
  readonly tokenFrom: 'none' | 'that of --token' | 'that of the configuration' | 'that of SLUICE_ADMIN_TOKEN'
}

/**
 * The admin port that an option names, or else that of the configuration. With the option no configuration is read. A configured
 * token comes before that of the environment, which may be meant for another gateway.
 */
export async function adminPortOf({ config, url, token: option }: AdminOptions): Promise<AdminPort> {
  // Everybody on the machine can see an option, but not an environment variable.
  const spare = process.env['SLUICE_ADMIN_TOKEN'] || undefined
  const adminPort = (at: string, configured?: string): AdminPort => {
    if (option !== undefined) return { url: at, token: option, tokenFrom: 'that of --token' }
    if (configured !== undefined) return { url: at, token: configured, tokenFrom: 'that of the configuration' }
    return { url: at, token: spare, tokenFrom: spare === undefined ? 'none' : 'that of SLUICE_ADMIN_TOKEN' }
  }
  if (url !== undefined) {
    if (config !== undefined) throw new CommandError('--config has no effect beside --url: leave one of them out')
    // The messages name the URL, and so would show a password in it.
    if (!/^https?:\/\/[^@?#]+$/.test(url) || !URL.canParse(url))
      throw new CommandError('--url must be a URL such as http://127.0.0.1:9090, without user, query or fragment')
    return adminPort(url.replace(/\/$/, ''))
  }
  const find = (needsToken: boolean): Promise<FoundConfig | undefined> =>
    findConfig(config, {
      ignores: ([first, field]) => first !== 'admin' || !(needsToken || field === 'host' || field === 'port'),
    })
  const found = await find(option === undefined).catch((error: unknown) => {
    if (!(error instanceof ConfigError) || spare === undefined) throw error
    return find(false)
  })
  const admin = found?.config.admin
  const { host, port } = admin ?? { host: '127.0.0.1', port: 9090 }
  // Any of the tokens may read. One that was ignored because it could not be resolved is still its reference.
  const configured = [admin?.token, ...Object.values(admin?.tokens ?? {})]
    .map((secret) => secret?.reveal())
    .find((token) => token !== undefined && referencesIn(token).length === 0)
  return adminPort(`http://${hostToReach(host)}:${port}`, configured)
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

/** The admin port may send nothing for this long. It waits less for another instance that hangs, so longer silence means that it hangs itself. */
const SILENT_MS = 5_000

interface AskOptions<Answer> {
  readonly silentMs?: number
  /** The answer in the place of a 404, where a gateway of an older release does not have the path. */
  readonly ofOlder?: Answer
}

/**
 * Sends a GET to the admin port and gives its answer, a list. Throws a `CommandError` if nothing can be reached there, if it refuses, if
 * it does not answer as an admin port does, or if it sends nothing for `silentMs`.
 */
export async function askAdmin<Answer extends { readonly data: readonly unknown[] }>(
  admin: AdminPort,
  path: string,
  { silentMs = SILENT_MS, ofOlder }: AskOptions<Answer> = {},
): Promise<Answer> {
  const { url, tokenFrom } = admin
  const { status, text, isForClients } = await get(admin, path, silentMs)
  if (isForClients)
    throw new CommandError(
      `${url} is the port for clients of a gateway: name its admin port with --url, or its --config`,
    )
  if (status === 401)
    throw new CommandError(
      `${url} answered 401: it wants its admin.token or one of admin.tokens, from its --config, SLUICE_ADMIN_TOKEN or --token; it was shown ${tokenFrom}`,
    )
  if (status === 404 && ofOlder !== undefined) return ofOlder
  const answer = parsedJson(text)
  const { data, detail } = isObject(answer) ? answer : {}
  if (status === 200 && Array.isArray(data)) return answer as Answer
  if (status !== 200 && typeof detail === 'string') throw new CommandError(detail)
  throw new CommandError(
    `${url}${path} answered ${status}, but not as a gateway does: name its admin port with --url, or its --config`,
  )
}

/** `ready`, or why the gateway is not ready, or what its calls have to do without. */
export async function readiness(admin: AdminPort): Promise<string> {
  const answer = parsedJson((await get(admin, '/readyz', SILENT_MS)).text)
  const { status, reason, degraded } = (isObject(answer) ? answer : {}) as Record<string, string>
  if (reason !== undefined) return `${status}: ${reason}`
  return degraded === undefined ? 'ready' : `degraded: ${degraded}`
}

async function get(
  { url, token }: AdminPort,
  path: string,
  silentMs: number,
): Promise<{ readonly status: number; readonly text: string; readonly isForClients: boolean }> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  // The error of `fetch` would show the whole token.
  if (token !== undefined && !HEADER_VALUE.test(headers['authorization']!))
    throw new CommandError(
      'the admin token holds a character that no header value may have, such as a line end: mend admin.token, SLUICE_ADMIN_TOKEN or --token',
    )
  const silence = new AbortController()
  const timer = setTimeout(() => silence.abort(), silentMs)
  const { signal } = silence
  let isBegun = false
  try {
    const response = await fetch(url + path, { headers, signal })
    isBegun = true
    timer.refresh()
    const pieces: string[] = []
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      pieces.push(piece)
      timer.refresh()
    }
    // The port for clients says so of what it refuses, and the admin port of nothing.
    return { status: response.status, text: pieces.join(''), isForClients: response.headers.has('x-sluice-error') }
  } catch (error) {
    if (signal.aborted)
      throw new CommandError(`${url}${path}: no answer for ${silentMs / 1_000} s; its gateway hangs, or is very busy`)
    const { cause, message } = error as Error
    const why = cause instanceof Error ? cause.message : message
    throw new CommandError(
      isBegun
        ? `${url}${path} broke off in the middle of its answer: ${why}; the gateway’s log says more, unless it ended`
        : `no gateway answers on ${url}: ${why}; name its admin port with --url, or its --config`,
    )
  } finally {
    clearTimeout(timer)
  }
}
