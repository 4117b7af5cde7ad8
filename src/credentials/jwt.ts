import { randomUUID } from 'node:crypto'
import type { Clock } from '../time/clock.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import { tokenOf } from './oauth2.ts'
import { jose } from '../packages/jose.ts'
import { algorithmOf, importSigningKey, parsePrivateKey } from './signing-key.ts'
import type { Token } from './token-keeper.ts'

const USUAL_LIFETIME_MS = 300_000
/** How far in the past `iat` lies, because the vendor's clock may be behind ours; at most half of the lifetime. */
const BACKDATED_S = 30

/**
 * Signs a JWT (RFC 7519) that the upstream itself accepts. Its dates are those of the wall clock, in whole seconds.
 * `iat` lies up to 30 s in the past, and `exp` is exactly `lifetime` after `iat`.
 */
export async function signToken(config: CredentialConfig, clock: Clock): Promise<Token> {
  const { lifetime = USUAL_LIFETIME_MS, claims = {}, issuer, subject, audience, keyId } = config
  const [now, wall] = [clock.now(), clock.wall()]
  const lifetimeS = Math.floor(lifetime / 1_000)
  // Vendors limit the span from `iat` to `exp`, so a token that begins earlier must also end earlier.
  const backdatedS = Math.min(BACKDATED_S, Math.floor(lifetimeS / 2))
  const issuedAtS = Math.floor(wall / 1_000) - backdatedS
  const alg = config.algorithm ?? algorithmOf(parsePrivateKey(config.key!.reveal()))!
  const jwt = new (jose().SignJWT)(claims)
    .setProtectedHeader({ alg, typ: 'JWT', ...(keyId === undefined ? {} : { kid: keyId }) })
    .setIssuedAt(issuedAtS)
    .setExpirationTime(issuedAtS + lifetimeS)
    .setJti(randomUUID())
  if (issuer !== undefined) jwt.setIssuer(issuer)
  if (subject !== undefined) jwt.setSubject(subject)
  if (audience !== undefined) jwt.setAudience(audience)
  const text = await jwt.sign(await importSigningKey(config.key!, alg))
  return { ...tokenOf(text, now, lifetime - backdatedS * 1_000, config.skew), wallAheadMs: wall - now }
}
