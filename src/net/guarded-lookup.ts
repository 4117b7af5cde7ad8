import { lookup as systemLookup, type LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'

/** Why a connection was not made: no address of the host may be connected to. */
export class AddressError extends Error {
  readonly code = 'ERR_ADDRESS_NOT_ALLOWED'
}

export interface GuardOptions {
  readonly isAllowed: (address: string) => boolean
  /** Asks for the addresses of a name. Default: as the system does. */
  readonly lookup?: LookupFunction | undefined
}

/**
 * A look-up that gives out only addresses which may be connected to: the addresses that were checked are those that are
 * connected to, whatever the name stands for a moment later. Fails with an `AddressError` if none is left.
 */
export function guardedLookup({ isAllowed, lookup = systemLookup }: GuardOptions): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, '')
      // A look-up that is asked for all addresses answers with a list.
      const allowed = (found as LookupAddress[]).filter(({ address }) => isAllowed(address))
      const [first] = allowed
      if (first === undefined) {
        callback(new AddressError(`${hostname} has no address that the network access rules allow`), '')
      } else if (options.all === true) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}
