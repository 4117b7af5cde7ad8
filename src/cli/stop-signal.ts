import { isatty } from 'node:tty'

interface StopOptions {
  readonly signals?: readonly NodeJS.Signals[]
  /** Is called when a second signal is about to end the process. With `ignore`, further signals change nothing. */
  readonly onImpatience?: ((signal: string) => void) | 'ignore'
  /** Is called for a SIGHUP. A SIGHUP that says that the terminal has gone stops the process instead. */
  readonly onReload?: (() => void) | undefined
}

const endAtOnce = (): void => process.exit(0)

/**
 * Ends the process at a signal, until `onStopSignal` is called. Without this a process that has the number 1, as in a container, does
 * not heed a signal while it loads its code and its configuration.
 */
export function endAtSignal(): void {
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, endAtOnce)
}

/**
 * Runs `stop` at the first signal, then ends the process. A second signal ends the process at once, unless it is to be ignored or is a
 * SIGHUP: where a terminal is closed, the launcher for an older Node passes on one that this process got, too.
 */
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
      if (onImpatience !== 'ignore' && signal !== 'SIGHUP' && count > signalsToStop(signal)) {
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
  // Last: without any listener a signal that has come, and was not dealt with yet, would be lost.
  for (const signal of ['SIGTERM', 'SIGINT']) process.off(signal, endAtOnce)
}

function hasTerminal(): boolean {
  return [0, 1, 2].some(isatty)
}

/**
 * How many signals mean one wish to stop. Usually that is one. Under `npm start` a Ctrl-C arrives twice: from the terminal, and
 * from npm, which passes its own on.
 */
function signalsToStop(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' && process.env['npm_lifecycle_event'] === 'start' ? 2 : 1
}
