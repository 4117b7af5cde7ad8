import { setTimeout as pause } from 'node:timers/promises'
import { findConfig } from '../config/find.ts'
import type { QuotaRow } from '../server/admin/status.ts'
import { CommandError } from './command-error.ts'

interface Options {
  readonly config?: string
  readonly once?: boolean
  readonly url?: string
  readonly token?: string
}

/** Shows the quotas of a running gateway, again every second where somebody is looking. */
export async function quota(options: Options): Promise<void> {
  const { url, token } = await adminOf(options)
  const isLive = process.stdout.isTTY && options.once !== true
  do {
    const table = format(await fetchRows(`${url}/v1/quota`, token), process.stdout.columns ?? USUAL_WIDTH)
    process.stdout.write(isLive ? `\u001B[2J\u001B[H${table}` : table)
    if (isLive) await pause(1_000)
  } while (isLive)
}

/** The admin port that is named, for which no configuration is needed; else that of the configuration. */
async function adminOf({ config, url, token }: Options): Promise<{ url: string; token: string | undefined }> {
  if (url !== undefined) return { url: url.replace(/\/$/, ''), token }
  const found = await findConfig(config, { ignores: ([first]) => first !== 'admin' })
  const admin = found?.config.admin
  const { host, port } = admin ?? { host: '127.0.0.1', port: 9090 }
  // Any of them may read.
  const configured = admin?.token ?? Object.values(admin?.tokens ?? {})[0]
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`, token: token ?? configured?.reveal() }
}

async function fetchRows(url: string, token: string | undefined): Promise<QuotaRow[]> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const response = await fetch(url, { headers }).catch((error: Error) => {
    const why = error.cause instanceof Error ? error.cause.message : error.message
    throw new CommandError(`no gateway answers on ${url}: ${why}; name its admin port with --url, or its --config`)
  })
  if (response.status === 401)
    throw new CommandError(
      `${url} answered 401: it wants its admin.token or one of admin.tokens, from its --config or with --token`,
    )
  if (response.status === 503)
    throw new CommandError('store unreachable: the gateway can’t ask its quota store, and refuses calls')
  if (!response.ok) throw new CommandError(`${url} answered ${response.status}`)
  return ((await response.json()) as { data: QuotaRow[] }).data
}

/** Of a terminal, and of what does not say how wide it is. */
const USUAL_WIDTH = 80
/** Names are not cut shorter than that, however narrow the terminal is. */
const SHORTEST_NAME = 8
const NAMES = ['ACCOUNT', 'WINDOW', 'CLASS']

/** A table no wider than that: names that are too long are cut, the longest first. */
function format(rows: readonly QuotaRow[], width: number): string {
  const head = ['ACCOUNT', 'CLASS', 'WINDOW', 'LIMIT', 'NOW', 'USED', 'LEFT', 'RESETS', 'WAITING']
  const lines = rows.map((row) => [
    `${row.upstream}/${row.account}`,
    row.class,
    row.window,
    String(row.limit),
    String(row.effective),
    String(row.used),
    String(row.remaining),
    `${Math.ceil(row.resetMs / 1_000)}s`,
    String(row.waiting),
  ])
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)))
  const cuttable = NAMES.map((name) => head.indexOf(name))
  for (let over = sum(widths) + 2 * (widths.length - 1) - width; over > 0; over--) {
    const widest = cuttable.reduce((a, b) => (widths[b]! > widths[a]! ? b : a))
    if (widths[widest]! <= SHORTEST_NAME) break
    widths[widest]!--
  }
  return [head, ...lines]
    .map(
      (line) =>
        `${line
          .map((cell, i) => cut(cell, widths[i]!).padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** The end of a name tells more than its middle: `eu-production-main` is cut to `eu-pro…-main`. */
function cut(text: string, width: number): string {
  if (text.length <= width) return text
  const end = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0)
}
