/** A gateway can not start, and that is neither a bug nor a port that is taken. The message says why, and is all that is shown. */
export class StartError extends Error {}

/** To be thrown instead of an error whose message says all. */
export function failed(error: Error): never {
  throw new StartError(error.message, { cause: error })
}
