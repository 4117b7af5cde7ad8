import type { Worker } from 'node:cluster'
import type { FoundConfig } from '../config/find.ts'
import type { TokenStore } from '../credentials/token-store.ts'
import type { Answer, Told } from '../ledger/workers/wire.ts'
import type { RequestQuestion } from '../requests/question.ts'
import type { BreakerOrder, Controls, Status } from '../server/admin/status.ts'
import type { UsageDays } from '../usage/days.ts'

/** How often each worker is asked for a sign of life. */
const BEAT_MS = 1_000
/** A worker may miss this many signs of life in a row. */
const MISSING_BEATS = 5
/** This many beats may pass while a worker starts: it can't answer questions yet. */
const MISSING_BEATS_AT_START = 60
/** Nobody waits for the answer of a worker that has missed this many beats. */
const LATE_BEATS = 2

/** The configuration as the first process read it. Workers parse this text, because the file may have changed meanwhile. */
export interface ConfigText {
  readonly source: string
  readonly text: string
}

/** A configuration text as given to workers. A text with a greater `generation` was first given later. */
export interface GivenText extends ConfigText {
  readonly generation: number
}

/** `text` is never missing here: only a configuration file can ask for workers. */
export function textOf({ source, text = '' }: FoundConfig): ConfigText {
  return { source, text }
}

/** What the first process asks a worker: its status, its controls, its counts, and for a sign of life. */
export type Question = 'alive' | 'counts' | keyof Status | Exclude<keyof Controls, 'lastReload'>

export interface Ask {
  readonly ask: Question
  readonly number: number
  /** What the question needs: the configuration to put in force, the order for a breaker, or which calls to find. */
  readonly input?: GivenText | BreakerOrder | RequestQuestion
}

/** The URLs of its ports. */
export interface Listening {
  readonly url: string
  readonly forwardProxyUrl: string | undefined
}

/** What a worker sends to the first process: one of these. */
export interface FromWorker {
  /** The worker runs, and asks for its configuration. The first process answers with `begin`. */
  readonly begun?: true
  /** Where the worker takes calls; or, in `failed`, why it can't take any. */
  readonly listening?: Listening
  readonly failed?: object
  /** The number of a question, with its `answer` or a `part` of it. After the last part comes the answer `null`. */
  readonly reply?: number
  readonly answer?: unknown
  readonly part?: unknown
  /** A piece of the worker's counts, sent before or beside an answer. */
  readonly told?: unknown
  /** What the worker asks and tells the ledger of the first process. */
  readonly ledger?: readonly Told[]
  readonly request?: WorkerRequest
  /** Resources of the cache in memory that writes have ended, for the other workers. */
  readonly invalidated?: readonly string[]
}

/** What the first process does for workers that share the embedded store. */
export interface Shared {
  readonly addUsage: UsageDays['add']
  readonly readUsage: UsageDays['read']
  readonly getToken: TokenStore['get']
  readonly setToken: TokenStore['set']
  readonly lockToken: TokenStore['lock']
  readonly unlockToken: TokenStore['unlock']
}

/** A call of a function of `Shared`: its name and its arguments. */
export interface WorkerRequest {
  readonly number: number
  readonly what: keyof Shared
  readonly input: readonly unknown[]
}

/** What the first process sends to a worker, besides questions: one of these. */
export interface ToWorker {
  readonly begin?: GivenText
  readonly ledger?: readonly Answer[]
  /** The outcome of a `WorkerRequest`: its answer, or the problem that it failed with. */
  readonly given?: { readonly number: number; readonly answer?: unknown; readonly problem?: string }
  /** Resources of the cache that writes through another worker have ended. */
  readonly invalidated?: readonly string[]
}

interface LinkOptions {
  /** The question whose answer counts as the next sign of life. */
  beat(): object
  /** Called with each sign of life. */
  onBeat(answer: unknown): void
  /** Called with each part of what the worker tells without being asked. */
  onTold(part: unknown): void
  /** The worker hangs: it is running, but has answered nothing for `MISSING_BEATS`. */
  onHung(): void
}

/** A question without an answer. */
interface Open {
  readonly number: number
  readonly timer: NodeJS.Timeout | undefined
  readonly parts: unknown[]
  resolve(answer: unknown): void
}

/** The first process's side of one worker: asks it questions, and watches it for signs of life. */
export class WorkerLink {
  readonly worker: Worker
  readonly #options: LinkOptions
  /** An array, because a Map would keep the parts of answers in memory (see `Roster`), and few questions are open at a time. */
  #open: Open[] = []
  readonly #beats: NodeJS.Timeout
  isListening = false
  #questions = 0
  /** Signs of life that are missing now. */
  #missing = 0
  #isAsked = false

  constructor(worker: Worker, options: LinkOptions) {
    this.worker = worker
    this.#options = options
    worker.on('message', ({ reply, part, answer, told }: FromWorker) => {
      if (reply !== undefined && part !== undefined) this.#open.find(({ number }) => number === reply)?.parts.push(part)
      else if (reply !== undefined) this.#answered(reply, answer)
      if (told !== undefined) this.#told(told)
    })
    worker.once('exit', () => {
      clearInterval(this.#beats)
      for (const { number } of this.#open) this.#answered(number, undefined)
    })
    // Beats are counted, not time: otherwise every worker would seem to hang after the first process itself stood still.
    this.#beats = setInterval(() => this.#beat(), BEAT_MS)
  }

  /** From now on the worker takes calls, and answers questions. */
  listens(): void {
    this.isListening = true
    this.#missing = 0
  }

  /** Whether an answer can be expected. */
  get isAlive(): boolean {
    return this.isListening && this.#missing < LATE_BEATS
  }

  /**
   * The worker's answer, or an array of its parts if it is sent in parts. Undefined if the worker ends before it answers, or if it
   * neither answers nor sends counts for `withinMs`.
   */
  ask<Answer>(question: object, withinMs: number): Promise<Answer | undefined> {
    const number = this.#questions++
    return new Promise((resolve) => {
      const timer = withinMs === Infinity ? undefined : setTimeout(() => this.#answered(number, undefined), withinMs)
      this.#open.push({ number, timer, parts: [], resolve: (answer) => resolve(answer as Answer | undefined) })
      // A closed channel brings no answer.
      this.worker.send({ ...question, number }, (error: Error | null) => {
        if (error !== null) this.#answered(number, undefined)
      })
    })
  }

  #answered(number: number, answer: unknown): void {
    const question = this.#open.find((open) => open.number === number)
    this.#open = this.#open.filter((open) => open !== question)
    clearTimeout(question?.timer)
    question?.resolve(answer === null && question.parts.length > 0 ? question.parts : answer)
  }

  /** A worker that is still telling something is alive, and will answer later. */
  #told(part: unknown): void {
    if (this.isListening) this.#missing = 0
    for (const { timer } of this.#open) timer?.refresh()
    this.#options.onTold(part)
  }

  #beat(): void {
    if (this.#isAsked || !this.isListening) {
      const most = this.isListening ? MISSING_BEATS : MISSING_BEATS_AT_START
      if (++this.#missing === most) this.#options.onHung()
      return
    }
    this.#isAsked = true
    void this.ask(this.#options.beat(), Infinity).then((answer) => {
      this.#isAsked = false
      this.#missing = 0
      if (answer !== undefined) this.#options.onBeat(answer)
    })
  }
}
