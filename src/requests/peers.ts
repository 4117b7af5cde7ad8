import { randomBytes } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import { connectedInTime, connectRedis } from '../redis/connection.ts'
import { troubleOf } from '../redis/trouble.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import { every } from '../time/every.ts'
import {
  type AwayInstance,
  type RequestAnswers,
  type RequestQuestion,
  isQuestion,
  latestSince,
  mergeAnswers,
} from './question.ts'

/** How often an instance reports that it is alive. */
const BEAT_S = 5
/** Nobody waits for an instance that has not reported for `LATE_S`, but it is named. After `FORGOTTEN_S` it is forgotten. */
const LATE_S = 3 * BEAT_S
const FORGOTTEN_S = 600
/** How long an instance may take to answer. It must be longer than an instance waits for a worker of its own that hangs. */
const ANSWER_WITHIN_MS = 1_500

/**
 * Reports this instance as alive now, or as alive so many seconds ago. Forgets instances that have not reported for long. Returns
 * the rest, this one included, each with the seconds since its latest report. It uses the clock of Redis, because the clocks of
 * instances may differ.
 */
const BEAT = `
  local now = tonumber(redis.call('TIME')[1])
  redis.call('ZADD', KEYS[1], now - tonumber(ARGV[3]), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
  redis.call('PEXPIRE', KEYS[1], 1000 * tonumber(ARGV[2]))
  local listed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES')
  for i = 2, #listed, 2 do listed[i] = tostring(now - tonumber(listed[i])) end
  return listed`

interface Peer {
  readonly id: string
  readonly name: string
  readonly silentS: number
}

interface Asked {
  readonly from: string
  readonly number: number
  readonly question: RequestQuestion
}

interface Answered extends RequestAnswers {
  readonly by: string
  readonly number: number
}

export interface PeersOptions {
  readonly store: StoreConfig
  readonly clock: Clock
  /** The name of this instance among the others. */
  readonly name: string
  /** Tells what this instance knows, with all of its workers. */
  answer(question: RequestQuestion): Promise<RequestAnswers>
}

/**
 * The other instances that share a Redis. Each instance subscribes to a common channel for questions, and to a channel of its own
 * for the answers to its questions. Each keeps its name in a sorted set, so that a dead instance is known to be missing. Questions
 * and answers hold no secrets: Redis has only what `GET /v1/requests` shows.
 */
export class RequestPeers {
  readonly #options: PeersOptions
  readonly #id = randomBytes(6).toString('hex')
  readonly #key: string
  /** Where questions are asked. Channels, unlike keys, are common to all databases of a Redis. */
  readonly #channel: string
  readonly #redis: Redis | Cluster
  readonly #subscriber: Redis | Cluster
  /** Questions of this instance that wait for answers. */
  readonly #open = new Map<number, (answer: Answered) => void>()
  #numbers = 0
  readonly #stopBeating: () => void

  constructor(options: PeersOptions) {
    this.#options = options
    this.#key = `${options.store.prefix}:requests`
    this.#redis = connectRedis(options.store)
    this.#subscriber = connectRedis(options.store)
    const { options: connection } = this.#redis
    const database = 'db' in connection ? (connection.db ?? 0) : 0
    this.#channel = database === 0 ? this.#key : `${this.#key}@${database}`
    this.#subscriber.on('message', (channel: string, text: string) => this.#hear(channel, text))
    const subscribe = (): void => {
      this.#subscriber.subscribe(this.#channel, this.#channelOf(this.#id)).catch(() => undefined)
    }
    this.#subscriber.on('ready', subscribe)
    const beat = (): void => void this.#beat().catch(() => undefined)
    this.#redis.on('ready', beat)
    this.#stopBeating = every(BEAT_S * 1_000, options.clock, () => {
      if (this.#redis.status === 'ready') beat()
      // Again and again: one that failed would leave this instance deaf, and so would a connection that died in silence.
      subscribe()
    })
  }

  /** Asks the other instances. Never rejects: whoever does not answer in time, or can't be asked, counts as away. */
  async ask(question: RequestQuestion): Promise<RequestAnswers> {
    const { clock } = this.#options
    try {
      await Promise.all([connectedInTime(this.#redis, clock), connectedInTime(this.#subscriber, clock)])
      const others = (await this.#beat()).filter(({ id }) => id !== this.#id)
      return await this.#askEach(others, question)
    } catch (error) {
      return { found: [], away: [{ instance: '*', why: `no other instance was asked: Redis ${troubleOf(error)}` }] }
    }
  }

  async close(): Promise<void> {
    this.#stopBeating()
    // What this instance knew is lost with it, so its name stays listed for a while as that of a missing instance. The report is
    // dated back, so that nobody waits for its answers.
    await this.#beat(LATE_S + 1).catch(() => undefined)
    this.#redis.disconnect()
    this.#subscriber.disconnect()
  }

  async #askEach(others: readonly Peer[], question: RequestQuestion): Promise<RequestAnswers> {
    const awaited = new Set(others.filter(({ silentS }) => silentS <= LATE_S).map(({ id }) => id))
    const answers = new Map<string, RequestAnswers>()
    const number = this.#numbers++
    const { promise: isOver, resolve: end } = Promise.withResolvers<void>()
    const timer = this.#options.clock.schedule(ANSWER_WITHIN_MS, end)
    this.#open.set(number, (answer) => {
      answers.set(answer.by, answer)
      awaited.delete(answer.by)
      if (awaited.size === 0) end()
    })
    try {
      const asked: Asked = { from: this.#id, number, question }
      await this.#redis.publish(this.#channel, JSON.stringify(asked))
      if (awaited.size > 0) await isOver
    } finally {
      this.#open.delete(number)
      timer.cancel()
    }
    const known = [...answers.values()]
    const silent = others.filter(({ id }) => !answers.has(id)).map(awayOf)
    const away = [...known.flatMap((answer) => answer.away), ...silent]
    return { found: known.flatMap(({ found }) => found), away, since: latestSince(known) }
  }

  /** Takes a question or an answer. Anybody who may use this Redis can publish, so a message of another shape is ignored. */
  #hear(channel: string, text: string): void {
    const message = parsedJson(text)
    if (!isObject(message)) return
    const { from, by, number, question, found, away } = message
    if (typeof number !== 'number') return
    if (channel === this.#channel) {
      if (typeof from === 'string' && from !== this.#id && isQuestion(question))
        void this.#answer(message as unknown as Asked).catch(() => undefined)
    } else if (typeof by === 'string' && areObjects(found) && areObjects(away)) {
      this.#open.get(number)?.(message as unknown as Answered)
    }
  }

  async #answer({ from, number, question }: Asked): Promise<void> {
    const answers = await this.#options.answer(question)
    const answered: Answered = { by: this.#id, number, ...answers }
    await this.#redis.publish(this.#channelOf(from), JSON.stringify(answered))
  }

  #channelOf(id: string): string {
    return `${this.#key}:${id}`
  }

  async #beat(agoS = 0): Promise<Peer[]> {
    const member = `${this.#id} ${this.#options.name}`
    const listed = (await this.#redis.eval(BEAT, 1, this.#key, member, FORGOTTEN_S, agoS)) as string[]
    const peers: Peer[] = []
    for (let i = 0; i < listed.length; i += 2) {
      const [id = '', ...words] = listed[i]!.split(' ')
      peers.push({ id, name: words.join(' '), silentS: Number(listed[i + 1]) })
    }
    return peers
  }
}

function areObjects(value: unknown): boolean {
  return Array.isArray(value) && value.every(isObject)
}

function awayOf({ name, silentS }: Peer): AwayInstance {
  const why =
    silentS > LATE_S
      ? `it has said nothing for ${silentS} s: it has stopped, with what it knew, or is cut off from Redis`
      : `it did not answer within ${ANSWER_WITHIN_MS} ms`
  return { instance: name, why }
}

/** Answers questions about the calls of all instances. */
export type AllRequests = Pick<RequestPeers, 'ask' | 'close'>

/** Opens the way to ask this instance and all others that share its Redis. Without Redis, only this instance is asked. */
export function openAllRequests(options: PeersOptions): AllRequests {
  const { store, answer } = options
  const peers = store.kind === 'redis' ? new RequestPeers(options) : undefined
  return {
    async ask(question) {
      const asked = peers === undefined ? [answer(question)] : [answer(question), peers.ask(question)]
      return mergeAnswers(await Promise.all(asked), question)
    },
    close: () => peers?.close() ?? Promise.resolve(),
  }
}
