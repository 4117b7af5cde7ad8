import type { Worker } from 'node:cluster'
import { createRequire } from 'node:module'
import type * as Limiters from 'rate-limiter-flexible'
import { MemoryTokens } from '../credentials/token-store.ts'
import type { MemoryLedger } from '../ledger/embedded/memory-ledger.ts'
import { LedgerService } from '../ledger/workers/ledger-service.ts'
import type { Answer } from '../ledger/workers/wire.ts'
import type { Logger } from '../observe/log.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import type { FileDays } from '../usage/file-days.ts'
import { openEmbedded } from './open-ledger.ts'
import { failed } from './start-error.ts'
import type { FromWorker, Shared, ToWorker } from './worker-link.ts'

/** The embedded store of a gateway with workers. The first process holds it, and serves the workers from it. */
export class SharedStore {
  readonly #ledger: MemoryLedger
  #service: LedgerService | undefined
  readonly #tokens: MemoryTokens
  readonly #days: FileDays

  /** Throws a `StartError` where the folder can't be used. */
  constructor(store: StoreConfig, days: FileDays, { clock, logger }: { clock: Clock; logger: Logger }) {
    try {
      this.#ledger = openEmbedded(store, { clock, logger, onChange: () => this.#service?.onChange() })
    } catch (error) {
      failed(error as Error)
    }
    this.#service = new LedgerService(this.#ledger, clock)
    this.#tokens = new MemoryTokens(clock)
    this.#days = days
    // This lets workers count wrong keys together. The library is loaded here, because a gateway without workers does not need it.
    const library = createRequire(import.meta.url)('rate-limiter-flexible') as typeof Limiters
    new library.RateLimiterClusterMaster()
  }

  /** Answers whatever the worker asks, until it has ended. */
  serve(worker: Worker): void {
    const send = (message: ToWorker): boolean => worker.send(message)
    const connection = this.#service!.open((ledger: readonly Answer[]) => send({ ledger }))
    const shared = this.#sharedWith(worker.id)
    worker.on('message', ({ ledger, request }: FromWorker) => {
      if (ledger !== undefined) connection.receive(ledger)
      if (request === undefined) return
      const { number, what, input } = request
      // The name and the arguments are not checked: the first process started the worker, so both are of the same release.
      const run = shared[what] as (...input: readonly unknown[]) => Promise<unknown>
      run(...input).then(
        (answer) => send({ given: { number, answer } }),
        (error: Error) => send({ given: { number, problem: error.message } }),
      )
    })
    // `exit` would be too early: the channel may still hold messages that the worker sent before.
    worker.process.once('close', () => connection.close())
  }

  /** The workers must have ended. */
  async close(): Promise<void> {
    await this.#days.close()
    await this.#ledger.close()
  }

  #sharedWith(worker: number): Shared {
    return {
      addUsage: (batch) => this.#days.add(batch, worker),
      readUsage: (day) => this.#days.read(day),
      getToken: (name) => this.#tokens.get(name),
      setToken: (...token) => this.#tokens.set(...token),
      lockToken: (...lock) => this.#tokens.lock(...lock),
      unlockToken: (...lock) => this.#tokens.unlock(...lock),
    }
  }
}
