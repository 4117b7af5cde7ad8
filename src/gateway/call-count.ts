/** Counts the calls that use a snapshot, so that its connections can be closed after the last one. */
export class CallCount {
  #active = 0
  #onIdle: (() => void) | undefined

  begin(): void {
    this.#active++
  }

  end(): void {
    this.#active--
    if (this.#active === 0) this.#onIdle?.()
  }

  /** Calls `run` once no call is active, which may be at once. Use it only when no new call can begin. */
  onIdle(run: () => void): void {
    if (this.#active === 0) run()
    else this.#onIdle = run
  }
}
