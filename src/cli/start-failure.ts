import { StartError } from '../process/start-error.ts'
import { CommandError } from './command-error.ts'

/** Errors of an address that can't be listened on. Their own message says enough. */
const EXPECTED = new Set(['EACCES', 'EADDRNOTAVAIL', 'EAI_AGAIN', 'ENOTFOUND'])

/**
 * Throws a `CommandError` for a failed start that the operator can correct, and every other error as it is: that is a bug.
 * `portOptions` are the options that choose other ports.
 */
export function explainFailure(error: unknown, portOptions: string): never {
  const { code = '', port, address, message } = error as NodeJS.ErrnoException & { port?: number; address?: string }
  if (code === 'EADDRINUSE')
    throw new CommandError(`port ${port} of ${address} is in use; choose others with ${portOptions}`)
  if (error instanceof StartError || EXPECTED.has(code)) throw new CommandError(message)
  throw error
}

/** Throws if options give two listeners the same port: the second would say that it is in use, and nobody else uses it. */
export function refuseSamePorts(ports: readonly (number | undefined)[], portOptions: string): void {
  const twice = ports.find((port, i) => port !== undefined && port !== 0 && ports.indexOf(port) !== i)
  if (twice !== undefined)
    throw new CommandError(`port ${twice} is to be that of two listeners: choose different ones with ${portOptions}`)
}
