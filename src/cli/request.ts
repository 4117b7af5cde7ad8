import { type AwayInstance, noAnswerOf } from '../requests/question.ts'
import {
  accountOf,
  type LimitStory,
  type RequestRow,
  type RequestStory,
  type TryStory,
  type WaitStory,
} from '../requests/story.ts'
import { countOf, measured as ms, roughly } from '../schema/units.ts'
import { type AdminOptions, adminPortOf, askAdmin, queryOf } from './admin-port.ts'
import { CommandError } from './command-error.ts'
import { jsonOf, printable } from './printable.ts'
import { printTable } from './table.ts'

const FILTERS = ['client', 'account', 'class', 'status', 'since', 'limit'] as const

const USUAL_LIMIT = '20'

interface Options extends AdminOptions, Readonly<Partial<Record<(typeof FILTERS)[number], string>>> {
  readonly json?: boolean
}

interface Answers<Row> {
  readonly data: readonly Row[]
  readonly away: readonly AwayInstance[]
}

/** Prints the whole story of a request, whichever instance served it. Without an id it lists the latest requests. */
export async function request(id: string | undefined, options: Options): Promise<void> {
  if (id !== undefined) checkId(id, options)
  const admin = await adminPortOf(options)
  const { limit = USUAL_LIMIT } = options
  const query = queryOf({ ...options, limit }, FILTERS)
  const path = id === undefined ? `/v1/requests?${query.toString()}` : `/v1/requests/${encodeURIComponent(id)}`
  const answers = await askAdmin<Answers<RequestRow>>(admin, path)
  if (options.json === true) return void process.stdout.write(jsonOf(answers))
  if (answers.data.length === 0) process.stderr.write('no such call is known\n')
  if (id === undefined) printTable(TITLES, answers.data.map(cellsOf), CUTTABLE)
  else for (const story of answers.data) say([...tell(story as RequestStory), ''])
  say(answers.away.map(noAnswerOf))
  if (id === undefined && answers.data.length === Number(limit))
    process.stderr.write(`these are the latest ${limit}, and there may be more: see --limit, --since and the filters\n`)
}

function say(lines: readonly string[]): void {
  process.stdout.write(lines.map((text) => `${printable(text)}\n`).join(''))
}

/** Refuses what would be asked for something else: filters belong to the list, and dots would lead up from the path of the story. */
function checkId(id: string, options: Options): void {
  const filters = FILTERS.filter((name) => options[name] !== undefined).map((name) => `--${name}`)
  if (filters.length > 0)
    throw new CommandError(`${filters.join(', ')} would choose from the list: leave out either that or the id`)
  if (id === '.' || id === '..')
    throw new CommandError(`no story can be asked for by the id "${id}": see the list, without an id`)
}

const TITLES = ['TIME', 'STATUS', 'METHOD', 'PATH', 'ACCOUNT', 'CLASS', 'CLIENT', 'TOOK', 'OUTCOME', 'ID']
const CUTTABLE = ['PATH', 'ACCOUNT', 'CLASS', 'CLIENT']

function cellsOf(row: RequestRow): string[] {
  const { time, status, method, path, client, outcome, durationMs, correlationId, isRunning } = row
  const ended = [ms(durationMs), isRunning ? 'running' : outcome, correlationId]
  const cells = [time, status, method ?? '(no request)', path, accountOf(row), row.class, client, ...ended]
  // Whatever answered may have left out what a gateway says.
  return cells.map((cell) => cell ?? '')
}

/** The story of a call, one fact a line: who called and what, each wait, each attempt, and how it ended. */
function tell(story: RequestStory): string[] {
  const { refusal, cache, breaker, route } = story
  const lines = [
    `request   ${story.correlationId}`,
    `when      ${story.cameAt}, ${story.isRunning ? 'under way for' : 'took'} ${ms(story.durationMs)}, at ${story.instance}`,
    `from      ${story.client ?? 'an unknown client'}${story.address === null ? '' : `, ${story.address}`}`,
    `call      ${story.method ?? '(no request)'} ${story.path}`,
  ]
  if (story.traceId !== null) lines.push(`trace     ${story.traceId}`)
  if (story.upstream !== null) {
    const rule =
      route === null ? '' : `, ${route.pattern === null ? 'by a rule, since no route matches' : `by ${route.line}`}`
    lines.push(`to        ${accountOf(story)}${story.class === null ? '' : `, class ${story.class}`}${rule}`)
  }
  lines.push(...story.limits.map((limit, i) => `${i === 0 ? 'limits    ' : INDENT}${limitLine(limit)}`))
  if (story.storeDegraded) lines.push(`${INDENT}checked without the quota store, which did not answer`)
  for (const name of story.wouldDeny) lines.push(`${INDENT}${name} would have held it back, if it were enforced`)
  for (const wait of story.waits) lines.push(...waitLines(wait, story))
  if (breaker !== null) lines.push(`breaker   ${breaker.state}${openedBy(breaker)}`)
  lines.push(...story.tries.map((one, i) => `${i === 0 ? 'attempts  ' : INDENT}${tryLine(one)}`))
  if (cache !== null)
    lines.push(`cache     ${[cache.result, cache.status && `(${cache.status})`].filter(Boolean).join(' ')}`)
  lines.push(`result    ${resultOf(story)}`)
  if (refusal !== null) lines.push(`${INDENT}what to do: ${refusal.whatToDo}`)
  if (refusal !== null && refusal.retryAfterMs !== null)
    lines.push(`${INDENT}it was told to come back in ${roughly(refusal.retryAfterMs)}`)
  const parts = `queue ${ms(story.waitMs)}, upstream ${ms(story.upstreamMs)}, between attempts ${ms(story.backoffMs)}, gateway ${ms(story.gatewayMs)}`
  return [...lines, `time      ${parts}`, `bytes     ${story.requestBytes} in, ${story.responseBytes} out`]
}

const INDENT = ' '.repeat(10)

function limitLine({ limit, requests, effective, used, remaining, units, resetMs, enforced }: LimitStory): string {
  const now = effective === requests ? '' : ` (${effective} can be used now)`
  const cost = units === null || units === 1 ? '' : `, this call costs ${units}`
  const shadow = enforced ? '' : ', not enforced'
  return `${limit}: ${used} of ${requests} used${now}, ${remaining} left, more comes back in ${roughly(resetMs)}${cost}${shadow}`
}

function waitLines(wait: WaitStory, { asked }: RequestStory): string[] {
  const { beforeAttempt, because, heldBy, place, promisedMs, waitedMs, ended, servedBefore } = wait
  const held = because === 'concurrency' ? 'concurrency' : (heldBy ?? 'an unknown limit')
  const most = asked === null ? '' : `, at most ${roughly(asked.maxWaitMs)}`
  const before = beforeAttempt > 1 ? ` (before attempt ${beforeAttempt})` : ''
  // A call that never stood in the queue has no list of those that were served before it.
  const isRefusedAtOnce = ended !== 'admitted' && ended !== 'gone' && servedBefore === null
  const lines = [
    `held by   ${held}${before}: place ${place} in the queue, its turn expected in ${roughly(promisedMs)}${most}`,
    `${INDENT}${isRefusedAtOnce ? 'refused at once' : `waited ${ms(waitedMs)}`}: ${ended}`,
  ]
  if (servedBefore === null || servedBefore.calls === 0) return lines
  const clients = Object.entries(servedBefore.byClient).map(([client, calls]) => `${client} ${calls}`)
  return [...lines, `${INDENT}served here before it: ${countOf(servedBefore.calls, 'call')} (${clients.join(', ')})`]
}

function tryLine(one: TryStory): string {
  const { number, startedMs, delayMs, status, error, credential, credentialVersion, credentialBecause, requestId } = one
  const delay = number > 1 ? `, ${ms(delayMs)} after the attempt before` : ''
  const answer = status ?? error ?? 'no answer'
  const version = credentialVersion === null ? '' : ` version ${credentialVersion}`
  const because = credentialBecause === null ? '' : ` by ${credentialBecause}`
  const words = [
    `${number}. sent after ${ms(startedMs)}${delay}: ${answer} in ${ms(one.ms)}${one.end === null ? '' : `, ${one.end}`}`,
    ...(credential === null ? [] : [`credential ${credential}${version}${because}`]),
    ...(requestId === null ? [] : [`the vendor's id ${requestId}`]),
  ]
  return words.join('; ')
}

function openedBy({ openedBy: failure }: NonNullable<RequestStory['breaker']>): string {
  return failure === null ? '' : `, opened by ${failure.because} of the call ${failure.correlationId}`
}

function resultOf({ isRunning, status, outcome, refusal }: RequestStory): string {
  if (isRunning) return 'it is under way'
  if (refusal !== null) return `${status} ${refusal.kind}: ${refusal.message}`
  return outcome === 'delivered' ? `${status}, delivered` : `${status === 'none' ? 'no answer' : status}, ${outcome}`
}
