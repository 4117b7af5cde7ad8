import type { Credential, Unproven } from '../credentials/credential.ts'
import { CredentialUnavailableError } from '../credentials/token-keeper.ts'
import type { Route } from '../routing/route.ts'
import type { Sending } from './call.ts'
import { Failure } from './failure.ts'

/** The credential of one call, over all its attempts. */
export class RequestCredential {
  #credential: Credential
  readonly #route: Route
  /** The version of the credential in the latest attempt. */
  version = -1
  #isRenewed = false
  /** The credential with which the call was answered 403 before it was sent again. */
  suspect: Credential | undefined
  /** Why it was chosen of several; empty if there was no choice. */
  because = ''
  /** The secret that the latest attempt showed to the upstream. */
  exposed = ''

  constructor(credential: Credential, route: Route) {
    this.#credential = credential
    this.#route = route
  }

  /** Whether the call may have to be sent again with a renewed credential, so that its body must be kept. */
  get isRenewable(): boolean {
    return this.#credential.isRenewable
  }

  /**
   * Returns undefined if the credential is ready. Otherwise resolves with undefined when it is; with a failure if it can't be had; or
   * with `over` if the client has gone, or at `until`, or after `mostMs`.
   */
  prepare(call: Sending, until: number, mostMs = Infinity): Promise<Failure | 'over' | undefined> | undefined {
    const wait = this.#credential.ready?.(this.#isRenewed)
    return wait && waitFor(wait, call, until, mostMs)
  }

  addTo(request: Unproven): void {
    this.version = this.#credential.version
    this.#credential.addTo(request, this.#route)
    this.exposed = this.#credential.exposed
  }

  /**
   * Whether to send a call with that answer once more, with another credential. The upstream has done nothing of the call (RFC 9110
   * §15.5.2, §15.5.4), so its method does not matter. Returns true once a call at most, and only if the call can be sent again.
   */
  isWorthAnother(status: number, isReplayable: boolean, retryAfterMs: number): boolean {
    const mayRetry = isReplayable && !this.#isRenewed
    if (!this.#credential.refused(status, this.version, mayRetry, retryAfterMs) || !mayRetry) return false
    this.#isRenewed = true
    if (status === 403) this.suspect = this.#credential
    return true
  }

  /** Tells the credential that was refused how the retry with another credential was answered. */
  settled(status: number): void {
    this.suspect?.settled?.(status, this.suspect === this.#credential, this.version)
  }

  /** Marks the credential as in use by an attempt, until the result is disposed of. */
  take(): Disposable | undefined {
    return this.#credential.take?.()
  }

  /** In how many milliseconds another of the pool could take the call; 0 if at once, Infinity if there is none. */
  get othersInMs(): number {
    return this.#credential.othersInMs ?? Infinity
  }

  /** Uses another credential from the next attempt on. */
  replace(credential: Credential, because: string): void {
    this.#credential = credential
    this.because = because
  }
}

async function waitFor(
  wait: Promise<void>,
  call: Sending,
  until: number,
  mostMs: number,
): Promise<Failure | 'over' | undefined> {
  const since = call.clock.now()
  const { promise, resolve } = Promise.withResolvers<'over'>()
  const end = (): void => resolve('over')
  using waits = new DisposableStack()
  waits.use(call.gone.subscribe(end))
  const leftMs = Math.min(until - since, mostMs)
  if (leftMs !== Infinity) {
    const timer = call.clock.schedule(Math.max(0, leftMs), end)
    waits.defer(() => timer.cancel())
  }
  try {
    return await Promise.race([wait.then(() => undefined), promise])
  } catch (error) {
    if (!(error instanceof CredentialUnavailableError)) throw error
    const { message, retryAfterMs, cause } = error
    return new Failure('credential_unavailable', `the account has no credential now: ${message}`, {
      retryAfterMs,
      cause,
    })
  } finally {
    call.receivingMs += call.clock.now() - since
  }
}
