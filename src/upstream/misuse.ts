import { AddressError } from '../net/guarded-lookup.ts'

/** Whether the request is at fault, not the upstream: undici rejects it, or its address is not allowed. */
export function isMisuse(error: Error): boolean {
  const { code } = error as { code?: string }
  return (
    error instanceof AddressError ||
    code === 'UND_ERR_INVALID_ARG' ||
    code === 'UND_ERR_NOT_SUPPORTED' ||
    code === 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH'
  )
}
