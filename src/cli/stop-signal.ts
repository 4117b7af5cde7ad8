import { isatty } from 'node:tty'

interface StopOptions {
  readonly signals?: readonly NodeJS.Signals[]
  /** Called when a second signal ends the process at once. */
  readonly onImpatience?: (signal: string) => void
  /** Called for a SIGHUP, unless it says that the terminal is gone: that stops. */
  readonly onReload?: (() => void) | undefined
}

/** Runs `stop` at the first of the signals, then ends the process; a second one ends it at once. */
export function onStopSignal(
  stop: (signal: string) => Promise<void>,
  { signals = ['SIGTERM', 'SIGINT', 'SIGHUP'], onImpatience = () => undefined, onReload }: StopOptions = {},
): void {
  const hadTerminal = hasTerminal()
  let count = 0
  for (const signal of signals) {
    process.on(signal, () => {
      if (signal === 'SIGHUP' && onReload !== undefined && hasTerminal() === hadTerminal) return onReload()
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

function hasTerminal(): boolean {
  return [0, 1, 2].some(isatty)
}

/** One; but a Ctrl-C comes twice under `npm start`, from the terminal and once more from npm, which passes on its own. */
function signalsToStop(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' && process.env['npm_lifecycle_event'] === 'start' ? 2 : 1
}
