import { addAbortListener } from 'node:events'
import { emitKeypressEvents } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import type { RequestRow } from '../requests/story.ts'
import type { Cause } from '../server/admin/cause.ts'
import type { QueueRow, QuotaRow } from '../server/admin/status.ts'
import { type AdminOptions, type AdminPort, adminPortOf, askAdmin, readiness } from './admin-port.ts'
import { CommandError } from './command-error.ts'
import { colour, quotaTable, type TableOptions } from './quota.ts'
import { printable } from './printable.ts'
import { columnsOf, short } from './table.ts'

interface Options extends AdminOptions {
  readonly once?: boolean
}

/** What a gateway tells of itself now. */
export interface TopState {
  readonly url: string
  /** `ready`, or why it is not ready, or what it serves calls without. */
  readonly state: string
  readonly limits: readonly QuotaRow[]
  readonly queue: readonly QueueRow[]
  /** What is wrong, the worst first, as the live page has it. */
  readonly causes: readonly Pick<Cause, 'severity' | 'what' | 'todo'>[]
  /** The latest calls of the last five minutes, of all gateways: at most `MOST_CALLS`. */
  readonly calls: readonly RequestRow[]
}

const EVERY_MS = 1_000
/** When an answer takes longer than this, the screen says so. Its figures are then no longer those of now. */
const LATE_MS = 2_000
/** Who calls most is counted over at most so many of the latest calls. */
const MOST_CALLS = 200
/** The size where the output does not tell its own. */
const USUAL = { width: 80, height: 24 }

/**
 * Shows what happens at a running gateway, again every second until q or Ctrl-C; only once with `once`, or where the output is no terminal.
 * Throws `CommandError` if the gateway does not answer the first time.
 */
export async function top(options: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const first = await ask(admin)
  const { stdout } = process
  if (!stdout.isTTY || options.once === true) {
    const width = stdout.columns || USUAL.width
    return void stdout.write(topScreen(first, { width, paint: colour }))
  }
  await showUntilStopped(admin, first)
}

async function ask(admin: AdminPort): Promise<TopState> {
  const list = async <Row>(path: string, options: { ofOlder?: { data: Row[] } } = {}): Promise<Row[]> =>
    (await askAdmin<{ data: Row[] }>(admin, path, options)).data
  const [state, limits, queue, causes, calls] = await Promise.all([
    readiness(admin),
    list<QuotaRow>('/v1/quota'),
    list<QueueRow>('/v1/queue'),
    list<Cause>('/v1/causes', { ofOlder: { data: [] } }),
    list<RequestRow>(`/v1/requests?since=5m&limit=${MOST_CALLS}`),
  ])
  return { url: admin.url, state, limits, queue, causes, calls }
}

/** Uses the second screen of the terminal, so that the first one comes back however this ends. Also ends when the input does. */
async function showUntilStopped(admin: AdminPort, first: TopState): Promise<void> {
  const { stdin, stdout } = process
  const stop = new AbortController()
  const { signal } = stop
  const end = (): void => stop.abort()
  let last = first
  let heardAt = performance.now()
  let isAsking = false
  let problem: string | undefined
  const draw = (): void => {
    const [width, height] = [stdout.columns || USUAL.width, stdout.rows || USUAL.height]
    const silentMs = performance.now() - heardAt
    const isSilent = isAsking && silentMs > EVERY_MS + LATE_MS
    const state = isSilent ? `no answer for ${Math.floor(silentMs / 1_000)} s` : (problem ?? last.state)
    const lines = topScreen({ ...last, state }, { width, height, paint: colour }).split('\n')
    // From the top, over what was there: a screen that is cleared first flickers.
    stdout.write(`\u001B[H${lines.map((line) => `${line}\u001B[K`).join('\r\n')}\u001B[J`)
  }
  const onKey = (_: string | undefined, { name, ctrl }: { name?: string; ctrl?: boolean }): void => {
    if (name === 'q' || (ctrl === true && (name === 'c' || name === 'd'))) end()
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, end)
  emitKeypressEvents(stdin)
  stdin.on('keypress', onKey)
  stdin.on('end', end)
  if (stdin.isTTY) stdin.setRawMode(true)
  stdin.resume()
  stdout.on('resize', draw)
  const redrawing = setInterval(draw, EVERY_MS)
  stdout.write('\u001B[?1049h\u001B[?25l')
  try {
    while (!signal.aborted) {
      draw()
      await pause(EVERY_MS, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) break
      isAsking = true
      try {
        last = await unlessAborted(ask(admin), signal)
        heardAt = performance.now()
        problem = undefined
      } catch (error) {
        // A gateway that restarts is there again in a moment; until then what it said last is shown.
        if (!(error instanceof CommandError)) throw error
        problem = error.message
      } finally {
        isAsking = false
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    stdout.write('\u001B[?25h\u001B[?1049l')
    clearInterval(redrawing)
    stdout.off('resize', draw)
    if (stdin.isTTY) stdin.setRawMode(false)
    stdin.off('keypress', onKey).off('end', end).pause()
    for (const name of signals) process.off(name, end)
  }
}

/** Rejects at once when it is aborted. Leaves no listener behind: there is one call each second, for as long as somebody looks. */
async function unlessAborted<T>(asked: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  using _ = addAbortListener(signal, () => reject(new Error('stopped')))
  return await Promise.race([asked, promise])
}

/** The most lines of each part but the limits, which get what is left. */
const MOST_CAUSES = 4
const MOST_WAITING = 4
const MOST_CLIENTS = 4

/**
 * What is wrong stands first, then the limits, the fullest first, then who waits and who calls. Without a height, all that is wrong is
 * shown, and what to do about it; these lines may be longer than the width.
 */
export function topScreen(state: TopState, { width, height, paint }: TableOptions): string {
  const fit = (text: string): string => printable(text.length <= width ? text : `${text.slice(0, width - 1)}…`)
  const isWell = state.state === 'ready'
  const title = fit(`Sluice ${state.url}: ${state.state.replaceAll(/\p{Cc}/gu, ' ')}`)
  const causes = height === undefined ? state.causes.map(sayCause) : shortCauses(state.causes, fit)
  const below = [
    ...part(waitingRows(state.queue), { width, cuttable: ['WAITS IN', 'CLASS', 'CLIENT'] }),
    ...part(clientRows(state.calls), { width, cuttable: [TOP_CLIENTS, TOP_OF_LATEST] }),
  ].map(fit)
  const above = [isWell ? title : paint(title, 1), ...causes.map(({ text, fullness }) => paint(text, fullness))]
  const room = height === undefined ? undefined : Math.max(3, height - above.length - below.length - 1)
  const options = { width, paint: (text: string, fullness: number) => paint(fit(text), fullness) }
  const table = quotaTable(state.limits, { ...options, ...(room === undefined ? {} : { height: room }) })
  // A painted line fits already, and has more characters than it shows.
  const limits = table
    .trimEnd()
    .split('\n')
    .map((line) => (line.includes('\u001B') ? line : fit(line)))
  const all = [...above, '', ...limits, ...below]
  return height === undefined ? `${all.join('\n')}\n` : all.slice(0, height).join('\n')
}

function part(rows: readonly string[][], options: { width: number; cuttable: readonly string[] }): string[] {
  return rows.length === 0 ? [] : ['', ...columnsOf(rows, options)]
}

interface CauseLine {
  readonly text: string
  /** Paints what fails like a limit that is used up, and a warning like one that nearly is. */
  readonly fullness: number
}

function sayCause({ severity, what, todo }: TopState['causes'][number]): CauseLine {
  const isFailing = severity === 'failing'
  return { text: printable(`${isFailing ? 'Failing' : 'Warning'}: ${what} ${todo}`), fullness: isFailing ? 1 : 0.9 }
}

/** What is wrong, in a few lines that fit. */
function shortCauses(causes: TopState['causes'], fit: (text: string) => string): CauseLine[] {
  const lines = causes.slice(0, MOST_CAUSES).map((cause) => sayCause({ ...cause, todo: '' }))
  const more = causes.length - lines.length
  const fitting = lines.map(({ text, fullness }) => ({ text: fit(text.trimEnd()), fullness }))
  const rest = `… and ${more} more, see npx sluice top --once, which says what to do, too`
  return more > 0 ? [...fitting, { text: fit(rest), fullness: fitting.at(-1)!.fullness }] : fitting
}

/** Who waits, the most calls first. */
function waitingRows(queue: readonly QueueRow[]): string[][] {
  if (queue.length === 0) return []
  const rows = queue.toSorted((a, b) => b.waiting - a.waiting).slice(0, MOST_WAITING)
  return [
    ['WAITS IN', 'CLASS', 'CLIENT', 'CALLS', 'FIRST', 'LAST'],
    ...rows.map(({ upstream, account, class: name, client, waiting, nextInMs, lastInMs }) => [
      `${upstream}/${account}`,
      name,
      client,
      String(waiting),
      short(nextInMs),
      short(lastInMs),
    ]),
  ]
}

const TOP_CLIENTS = 'TOP CLIENTS (5min)'
/** Where there may be more calls in these minutes than were read. */
const TOP_OF_LATEST = `TOP CLIENTS (last ${MOST_CALLS} calls)`

/** Who called most lately, and how that ended. */
function clientRows(calls: readonly RequestRow[]): string[][] {
  if (calls.length === 0) return []
  const clients = [...Map.groupBy(calls, ({ client }) => client ?? 'unknown')]
  const rows = clients.toSorted(([, a], [, b]) => b.length - a.length).slice(0, MOST_CLIENTS)
  return [
    [calls.length === MOST_CALLS ? TOP_OF_LATEST : TOP_CLIENTS, 'CALLS', 'REFUSED', 'WAITED'],
    ...rows.map(([client, own]) => [
      client,
      String(own.length),
      // Neither those whose client left nor those that broke off were refused.
      String(own.filter(({ reason }) => reason !== null).length),
      // A call that nothing held back has a waitMs, too: the moment that its charge took.
      String(own.filter(({ heldBy, waitMs }) => heldBy !== null && waitMs > 0).length),
    ]),
  ]
}
