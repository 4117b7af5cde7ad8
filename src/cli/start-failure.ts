import { StartError } from '../process/run.ts'
import { CommandError } from './command-error.ts'

/** What an address that can't be had says of itself is enough. */
const EXPECTED = new Set(['EACCES', 'EADDRNOTAVAIL', 'EAI_AGAIN', 'ENOTFOUND'])

/** Throws a `CommandError` for what can be mended from outside; `portOptions` choose other ports. The rest is a bug. */
export function explainFailure(error: unknown, portOptions: string): never {
  const { code = '', port, address, message } = error as NodeJS.ErrnoException & { port?: number; address?: string }
  if (code === 'EADDRINUSE')
    throw new CommandError(`port ${port} of ${address} is in use; choose others with ${portOptions}`)
  if (error instanceof StartError || EXPECTED.has(code)) throw new CommandError(message)
  throw error
}
