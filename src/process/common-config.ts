import type { Reloaded } from '../server/admin/status.ts'
import type { ConfigText, GivenText, WorkerLink } from './worker-link.ts'

/** Keeps all workers at one configuration: another one is in force in all of them, or in none. */
export class CommonConfig {
  /** What a worker that starts is to run. */
  inForce: ConfigText
  /** Each worker that takes calls, with what it runs. */
  readonly #running = new Map<WorkerLink, ConfigText>()
  #given = 0

  constructor(inForce: ConfigText) {
    this.inForce = inForce
  }

  /** To be sent to a worker. Limits of what is given later hold in the ledger that workers share. */
  given(text: ConfigText): GivenText {
    return { ...text, generation: ++this.#given }
  }

  /** A worker takes calls, with `text`; while it started, another one may have come in force. Returns when it runs that. */
  async join(link: WorkerLink, text: ConfigText): Promise<void> {
    this.#running.set(link, text)
    await this.#align(link)
  }

  /** The worker has ended, or is told to. */
  leave(link: WorkerLink): void {
    this.#running.delete(link)
  }

  /**
   * Offers another configuration to all workers, and waits until each has answered or ended: one that hangs is killed within
   * seconds, and the one in its place starts with what is in force then. Undefined if the workers took it. If one refuses it,
   * those that had taken it go back to the one before, and the problems are returned.
   */
  async offer(next: ConfigText): Promise<readonly string[] | undefined> {
    const answers = await Promise.all([...this.#running.keys()].map((link) => this.#give(link, next)))
    const problems = problemsOf(answers)
    if (problems === undefined) this.inForce = next
    // Also those that began to take calls meanwhile.
    await Promise.all([...this.#running.keys()].map((link) => this.#align(link)))
    return problems
  }

  /** Returns when the worker runs what is in force. One that refuses that is killed, so that another takes its place. */
  async #align(link: WorkerLink): Promise<void> {
    while (this.#running.has(link) && this.#running.get(link) !== this.inForce) {
      const answer = await this.#give(link, this.inForce)
      if (answer === undefined) return
      if (answer.result === 'rejected' && this.#running.has(link)) {
        link.worker.process.kill('SIGKILL')
        return
      }
    }
  }

  async #give(link: WorkerLink, text: ConfigText): Promise<Reloaded | undefined> {
    const answer = await link.ask<Reloaded>({ ask: 'reload', input: this.given(text) }, Infinity)
    if (answer !== undefined && answer.result !== 'rejected' && this.#running.has(link)) this.#running.set(link, text)
    return answer
  }
}

/** An answer is undefined if the worker ended before it gave one. */
function problemsOf(answers: readonly (Reloaded | undefined)[]): readonly string[] | undefined {
  const refusal = answers.find((answer) => answer?.result === 'rejected')
  if (refusal?.result === 'rejected') return refusal.problems
  const hasNobodyTaken = answers.length > 0 && answers.every((answer) => answer === undefined)
  return hasNobodyTaken ? ['no worker took it: each of them ended before it answered'] : undefined
}
