import { lookup as systemLookup, type LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'

/** A connection was not made, because none of the host's addresses is allowed. */
export class AddressError extends Error {
  readonly code = 'ERR_ADDRESS_NOT_ALLOWED'
}

export interface GuardOptions {
  readonly isAllowed: (address: string) => boolean
  /** Resolves a name. Default: the system's look-up. */
  readonly lookup?: LookupFunction | undefined
}

/**
 * A look-up that returns only allowed addresses. A connection is made to exactly the addresses that were checked, even
 * if the name resolves to others a moment later. Fails with an `AddressError` if none is allowed.
 */
export function guardedLookup({ isAllowed, lookup = systemLookup }: GuardOptions): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, '')
      // With `all`, the look-up answers with a list.
      const allowed = (found as LookupAddress[]).filter(({ address }) => isAllowed(address))
      const [first] = allowed
      if (first === undefined) {
        callback(new AddressError(`${hostname} has no address that the network access rules allow`), '')
      } else if (options.all === true) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}
