import { createRequire } from 'node:module'
import type * as Jose from 'jose'

const require = createRequire(import.meta.url)

/** The library for JWTs, loaded when one is first signed or verified: a gateway that does neither should not hold it. */
export function jose(): typeof Jose {
  return require('jose') as typeof Jose
}
