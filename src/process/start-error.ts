import type { Logger } from '../observe/log.ts'

/** Says why a gateway can't start, where that is neither a bug nor a port that is taken. Only the message is shown. */
export class StartError extends Error {}

/** A worker ended before it took calls: by itself, or because it was told to stop, too. */
export class WorkerEnded extends StartError {}

/** Says why a start failed before the end of what it began, which first finishes calls that came meanwhile. */
export function tellFailure(logger: Logger, { message }: Error): void {
  logger.error({ reason: message }, 'the start failed: the gateway ends when calls that came meanwhile are finished')
}

/** Throws a `StartError` with the message of `error`, which must explain everything. */
export function failed(error: Error): never {
  throw new StartError(error.message, { cause: error })
}
