import { readFileSync } from 'node:fs'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isRequestId } from '../../http/request-id.ts'
import type { Config } from '../../schema/schema.ts'
import { OTHER } from '../../observe/bounded-labels.ts'
import type { RequestRow, RequestStory } from '../../requests/story.ts'
import type { AdminParts } from './management.ts'
import { adminTokens, ownerOfToken, programOfThisMachine, type Token } from './log-in.ts'
import { storyPage } from './page-story.ts'
import { type Findings, findings } from './causes.ts'
import { listPage, type ListedCalls } from './page-list.ts'
import { livePage, liveParts, signInPage } from './page-view.ts'
import { AdminProblem } from './problem.ts'
import { readRequestList } from './requests.ts'
import { usageNow } from './usage-view.ts'
import { Sessions } from './sessions.ts'

const EVENT_EVERY_MS = 1_000
/** Who uses what has many rows, which come from all instances: less often. */
const USAGE_EVERY_MS = 5_000
/** How many pages may be open at once. The state is read and made a text once a second for all of them together, but each gets a copy. */
const MOST_OPEN = 100
/** Allows only our own script and style sheet. The page may load nothing from elsewhere, and no other site may frame it. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
const HTML = 'text/html; charset=utf-8'
const EVENTS = 'text/event-stream'
const SIGNED_OUT = 'event: signed-out\ndata: {}\n\n'
/** Tells the page that the gateway is there. A browser tells nothing of a comment. */
const NOTHING_NEW = 'event: nothing-new\ndata: {}\n\n'
const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
}

/**
 * Serves the live page on the admin port: what is wrong now, limits, who waits, breakers, credentials, failed calls, and the
 * story of a call. It changes nothing. People sign in with an admin token. If none is configured, the page is for browsers of
 * this machine only, as the API is for its programs.
 */
export function pageRoutes(app: FastifyInstance, admin: Config['admin'], parts: AdminParts): void {
  const { requests } = parts
  const { clock } = parts.management
  const tokens = adminTokens(admin)
  const sessions = new Sessions(tokens, clock)
  const usage = sharedFor(USAGE_EVERY_MS, clock, (found: Promise<Findings>) => usageNow(parts, found))
  const state = sharedFor(EVENT_EVERY_MS, clock, async () => {
    const asked = findings(parts, (question) => requests.ask(question))
    const [found, used] = await Promise.all([asked, usage(asked)])
    return { ...found, usage: used }
  })
  const live = sharedFor(EVENT_EVERY_MS, clock, async () => JSON.stringify(liveParts(await state()).text))
  let open = 0

  app.addHook('onRequest', async (_, reply) => void reply.headers(HEADERS))
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_, body, done) => {
    done(null, new URLSearchParams(String(body)))
  })
  /** Who is signed in. */
  const ownerOf = ({ headers }: FastifyRequest): string | undefined => sessions.ownerIn(headers.cookie)
  /** Without tokens nobody has to sign in. */
  const mayRead = (request: FastifyRequest): boolean => tokens.length === 0 || ownerOf(request) !== undefined
  const guard = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    if (tokens.length === 0) programOfThisMachine(request)
    if (mayRead(request)) return
    const next = ownPath(request.url)
    await reply.redirect(next === '/' ? '/sign-in' : `/sign-in?next=${encodeURIComponent(next)}`, 303)
  }

  asset(app, '/page.css', 'page.css', 'text/css')
  asset(app, '/page-live.js', 'page-live.js', 'text/javascript')
  app.get('/', { onRequest: guard }, async (request, reply) => {
    return reply.type(HTML).send(livePage(await state(), ownerOf(request)))
  })
  app.get<{ Querystring: Record<string, unknown> }>('/requests', { onRequest: guard }, async (request, reply) => {
    const { id, ...rest } = request.query
    if (typeof id === 'string' && id.trim() !== '')
      return reply.redirect(`/requests/${encodeURIComponent(id.trim())}`, 303)
    // A link of a dashboard has every parameter, with an empty value where the series has no such label.
    const query = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== '' && value !== '*'))
    if (Object.keys(query).length === 0) return reply.redirect('/', 303)
    const answer = await listedCalls(query, parts)
    return reply.type(HTML).send(listPage(answer, ownerOf(request)))
  })
  app.get<{ Params: { id: string } }>('/requests/:id', { onRequest: guard }, async (request, reply) => {
    const { id } = request.params
    const { found, away } = isRequestId(id) ? await requests.ask({ kind: 'find', id }) : { found: [], away: [] }
    const stories = found as readonly RequestStory[]
    return reply
      .code(stories.length === 0 ? 404 : 200)
      .type(HTML)
      .send(storyPage(id, stories, away, ownerOf(request)))
  })
  app.get('/events', (request, reply) => {
    if (tokens.length === 0) programOfThisMachine(request)
    // The page would take a redirect for an error, and try again for ever.
    if (!mayRead(request)) return reply.type(EVENTS).send(SIGNED_OUT)
    if (open >= MOST_OPEN) throw new AdminProblem(503, 'BUSY', 'too many live pages are open: close some')
    open++
    streamEvents(reply, { live, isSignedIn: () => mayRead(request), onEnd: () => void open-- })
    return reply
  })
  signInRoutes(app, { tokens, sessions, parts })
}

/** The calls that a query asks for. `other` of a dashboard is nobody's name where there is no call of that name. */
async function listedCalls(query: Readonly<Record<string, unknown>>, parts: AdminParts): Promise<ListedCalls> {
  const { filter, most, offset } = readRequestList(query, parts.management.clock)
  const { found, away } = await parts.requests.ask({ kind: 'list', filter, most: most + 1 })
  const named = Object.entries(query).filter(([name, value]) => value !== OTHER || !/^(?:client|account)$/.test(name))
  if (found.length === 0 && named.length < Object.keys(query).length)
    return { ...(await listedCalls(Object.fromEntries(named), parts)), isOfOthers: true }
  const rows = found as readonly RequestRow[]
  return { query, rows: rows.slice(offset, most), hasMore: rows.length > most, isOfOthers: false, away }
}

function signInRoutes(
  app: FastifyInstance,
  { tokens, sessions, parts }: { tokens: readonly Token[]; sessions: Sessions; parts: AdminParts },
): void {
  const { addressOf, management } = parts
  app.get<{ Querystring: Record<string, unknown> }>('/sign-in', (request, reply) =>
    reply.type(HTML).send(signInPage(undefined, ownPath(request.query['next']))),
  )
  app.post('/sign-in', async (request, reply) => {
    const form = request.body instanceof URLSearchParams ? request.body : new URLSearchParams()
    const token = form.get('token') ?? ''
    const next = ownPath(form.get('next'))
    const address = addressOf(request.raw) ?? 'unknown'
    const { owner, blockedMs } = await ownerOfToken(token.trim(), tokens, { guard: management.guard, address })
    if (owner !== undefined) return reply.header('set-cookie', sessions.begin(owner)).redirect(next, 303)
    const problem =
      blockedMs > 0
        ? 'Too many wrong tokens came from this address. Try again in a minute.'
        : tokens.length === 0
          ? 'No admin.token is configured: nobody has to sign in.'
          : 'This is no admin token.'
    return reply
      .code(blockedMs > 0 ? 429 : 401)
      .type(HTML)
      .send(signInPage(problem, next))
  })
  app.post('/sign-out', (_, reply) => reply.header('set-cookie', sessions.end()).redirect('/sign-in', 303))
}

/** Where to go once signed in: a page of calls that was asked for, or else the live page. Nothing that others make up leads elsewhere. */
function ownPath(path: unknown): string {
  return typeof path === 'string' && /^\/requests(?:[/?][\x21-\x5b\x5d-\x7e]*)?$/.test(path) ? path : '/'
}

/** Sends what has changed, once a second, until the page is closed or signed out. A state that can't be read is tried again. */
function streamEvents(
  reply: FastifyReply,
  { live, isSignedIn, onEnd }: { live: () => Promise<string>; isSignedIn: () => boolean; onEnd: () => void },
): void {
  const { raw } = reply.hijack()
  for (const [name, value] of Object.entries(HEADERS)) raw.setHeader(name, value)
  raw.writeHead(200, { 'content-type': EVENTS, 'x-accel-buffering': 'no' })
  let last = ''
  const send = async (): Promise<void> => {
    if (!isSignedIn()) {
      // A slow reader may take long to get this. Whatever is written meanwhile would be an error that nobody catches.
      clearInterval(timer)
      raw.end(SIGNED_OUT)
      return
    }
    // A slow reader skips states and gets the newest one. Otherwise they would pile up in memory.
    if (raw.writableNeedDrain) return
    const data = await live()
    if (raw.writableEnded) return
    raw.write(data === last ? NOTHING_NEW : `event: state\ndata: ${data}\n\n`)
    last = data
  }
  const timer = setInterval(() => void send().catch(() => undefined), EVENT_EVERY_MS)
  raw.once('close', () => {
    clearInterval(timer)
    onEnd()
  })
}

function asset(app: FastifyInstance, path: string, file: string, type: string): void {
  const text = readFileSync(new URL(file, import.meta.url), 'utf8')
  app.get(path, (_, reply) => reply.type(type).header('cache-control', 'no-cache').send(text))
}

/** Everybody who asks within this time gets the same answer. */
function sharedFor<T, Given extends unknown[]>(
  ms: number,
  clock: AdminParts['management']['clock'],
  ask: (...given: Given) => Promise<T>,
): (...given: Given) => Promise<T> {
  let asked: Promise<T> | undefined
  let askedAt = -Infinity
  return (...given) => {
    if (asked !== undefined && clock.now() - askedAt < ms) return asked
    askedAt = clock.now()
    asked = ask(...given)
    asked.catch(() => (asked = undefined))
    return asked
  }
}
