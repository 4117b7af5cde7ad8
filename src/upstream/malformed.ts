import { errors } from '../packages/undici.ts'

/** A response that undici's parser takes, although nobody can make sense of it. */
export class MalformedResponse extends Error {
  /**
   * - `INVALID_STATUS`: a status below 100 (RFC 9110 §15), which Node does not send;
   * - `UNASKED_TRANSFER_CODING`: undici undoes only the chunks, and the rest would reach the client still coded;
   * - `INVALID_SWITCH`: a 101 to a request that asked for no other protocol, or without the name of one;
   * - `TOO_MANY_INTERIM_RESPONSES`: more of them than any call needs.
   */
  readonly code: 'INVALID_STATUS' | 'UNASKED_TRANSFER_CODING' | 'INVALID_SWITCH' | 'TOO_MANY_INTERIM_RESPONSES'

  constructor(code: MalformedResponse['code']) {
    super(code)
    this.code = code
  }
}

/** Whether a request failed because its response is no well-formed HTTP. The upstream has got the request then. */
export function isMalformed(error: unknown): boolean {
  return (
    error instanceof MalformedResponse ||
    error instanceof errors.HTTPParserError ||
    error instanceof errors.ResponseContentLengthMismatchError
  )
}
