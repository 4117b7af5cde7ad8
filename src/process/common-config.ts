import type { Reloaded } from '../server/admin/status.ts'
import type { ConfigText, GivenText, WorkerLink } from './worker-link.ts'

/** Keeps all workers at the same configuration: a new one comes in force in all of them, or in none. */
export class CommonConfig {
  /** What a worker that starts is to run. */
  inForce: ConfigText
  /** Each worker that takes calls, with the configuration that it runs. */
  readonly #running = new Map<WorkerLink, ConfigText>()
  readonly #generations = new WeakMap<ConfigText, number>()
  #generation = 0

  constructor(inForce: ConfigText) {
    this.inForce = inForce
  }

  /** The text to send to a worker. If two texts differ in a limit, the shared ledger goes by the one that was first given later. */
  given(text: ConfigText): GivenText {
    return { ...text, generation: this.#generations.getOrInsertComputed(text, () => ++this.#generation) }
  }

  /** Adds a worker that takes calls and runs `text`. Resolves when it runs what is in force, which may be newer. */
  async join(link: WorkerLink, text: ConfigText): Promise<void> {
    this.#running.set(link, text)
    await this.#align(link)
  }

  /** The worker has ended, or is told to. */
  leave(link: WorkerLink): void {
    this.#running.delete(link)
  }

  /**
   * Offers a new configuration to all workers, and waits until each has answered or ended. Those that stop do not count. A worker that
   * hangs is killed within seconds, and its replacement starts with what is in force then. Returns undefined if the workers took the
   * configuration. If one refuses it, the others go back to the configuration before, and the problems are returned.
   */
  async offer(next: ConfigText): Promise<readonly string[] | undefined> {
    const answers = await Promise.all([...this.#running.keys()].map((link) => this.#give(link, next)))
    const problems = problemsOf(answers)
    if (problems === undefined) this.inForce = next
    // Those that took the other one go back to this one, which is later then.
    else this.#generations.delete(this.inForce)
    // This includes workers that began to take calls meanwhile.
    await Promise.all([...this.#running.keys()].map((link) => this.#align(link)))
    return problems
  }

  /** Resolves when the worker runs what is in force, has ended, or stops. A worker that refuses it is killed and so replaced. */
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

  /** Undefined if the worker has ended, or stops: it will end, and its replacement starts with what is in force then. */
  async #give(link: WorkerLink, text: ConfigText): Promise<Reloaded | undefined> {
    const answer = await link.ask<Reloaded | null>({ ask: 'reload', input: this.given(text) }, Infinity)
    if (answer === null || answer === undefined) return undefined
    if (answer.result !== 'rejected' && this.#running.has(link)) this.#running.set(link, text)
    return answer
  }
}

/** An answer is undefined if the worker stops, or ended before it gave one. */
function problemsOf(answers: readonly (Reloaded | undefined)[]): readonly string[] | undefined {
  const refusal = answers.find((answer) => answer?.result === 'rejected')
  if (refusal?.result === 'rejected') return refusal.problems
  const hasNobodyTaken = answers.length > 0 && answers.every((answer) => answer === undefined)
  return hasNobodyTaken ? ['no worker took it: each of them stops, or ended before it answered'] : undefined
}
