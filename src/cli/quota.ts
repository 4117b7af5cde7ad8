import { setTimeout as pause } from 'node:timers/promises'
import { findConfig } from '../config/find.ts'
import type { QuotaRow } from '../server/admin.ts'
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
    const table = format(await fetchRows(`${url}/v1/quota`, token))
    process.stdout.write(isLive ? `\u001B[2J\u001B[H${table}` : table)
    if (isLive) await pause(1_000)
  } while (isLive)
}

/** The admin port that is named, for which no configuration is needed; else that of the configuration. */
async function adminOf({ config, url, token }: Options): Promise<{ url: string; token: string | undefined }> {
  if (url !== undefined) return { url: url.replace(/\/$/, ''), token }
  const found = await findConfig(config, { ignores: ([first]) => first !== 'admin' })
  const { host, port, token: configured } = found?.config.admin ?? { host: '127.0.0.1', port: 9090 }
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`, token: token ?? configured?.reveal() }
}

async function fetchRows(url: string, token: string | undefined): Promise<QuotaRow[]> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const response = await fetch(url, { headers }).catch((error: Error) => {
    const why = error.cause instanceof Error ? error.cause.message : error.message
    throw new CommandError(`no gateway answers on ${url}: ${why}; name its admin port with --url, or its --config`)
  })
  if (response.status === 401)
    throw new CommandError(`${url} answered 401: it wants its admin.token, from its --config or with --token`)
  if (response.status === 503)
    throw new CommandError('store unreachable: the gateway can’t ask its quota store, and refuses calls')
  if (!response.ok) throw new CommandError(`${url} answered ${response.status}`)
  return ((await response.json()) as { data: QuotaRow[] }).data
}

function format(rows: readonly QuotaRow[]): string {
  const head = ['ACCOUNT', 'CLASS', 'WINDOW', 'LIMIT', 'NOW', 'USED', 'LEFT', 'RESETS IN', 'WAITING']
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
  return [head, ...lines]
    .map(
      (line) =>
        `${line
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}
