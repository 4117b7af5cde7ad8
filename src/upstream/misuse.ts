import { AddressError } from '../net/guarded-lookup.ts'

/** Errors about what was asked for, rather than about the upstream: of undici, or that its address is not to be reached. */
export function isMisuse(error: Error): boolean {
  const { code } = error as { code?: string }
  return (
    error instanceof AddressError ||
    code === 'UND_ERR_INVALID_ARG' ||
    code === 'UND_ERR_NOT_SUPPORTED' ||
    code === 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH'
  )
}
