/** Counts the calls that read a snapshot, so that what it has can be closed after the last. */
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

  /** Calls `run` when no call is active, which may be at once; call it only when none begins any more. */
  onIdle(run: () => void): void {
    if (this.#active === 0) run()
    else this.#onIdle = run
  }
}
