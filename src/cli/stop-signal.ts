interface StopOptions {
  readonly signals?: readonly NodeJS.Signals[]
  /** Called when a second signal ends the process at once. */
  readonly onImpatience?: (signal: string) => void
}

/** Runs `stop` at the first of the signals, then ends the process; a second one ends it at once. */
export function onStopSignal(
  stop: (signal: string) => Promise<void>,
  { signals = ['SIGTERM', 'SIGINT', 'SIGHUP'], onImpatience = () => undefined }: StopOptions = {},
): void {
  let count = 0
  for (const signal of signals) {
    process.on(signal, () => {
      count++
      if (count > signalsToStop(signal)) {
        onImpatience(signal)
        process.exit(1)
      }
      if (count > 1) return
      stop(signal).then(
        () => process.exit(0),
        (error: unknown) => {
          console.error(error)
          process.exit(1)
        },
      )
    })
  }
}

/** One; but a Ctrl-C comes twice under `npm start`, from the terminal and once more from npm, which passes on its own. */
function signalsToStop(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' && process.env['npm_lifecycle_event'] === 'start' ? 2 : 1
}
