import { createPrivateKey, type KeyObject } from 'node:crypto'
import { jose } from '../packages/jose.ts'
import type { Secret } from '../schema/secret.ts'

/** Imports a private key in any PEM form, for the given algorithm or the usual one of its type. */
export function importSigningKey(pem: Secret, algorithm: string | undefined): Promise<CryptoKey> {
  const key = parsePrivateKey(pem.reveal())
  const pkcs8 = key.export({ type: 'pkcs8', format: 'pem' })
  return jose().importPKCS8(pkcs8, algorithm ?? algorithmOf(key))
}

/** Parses a private key. Throws an error that does not repeat the text. */
export function parsePrivateKey(pem: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch {
    const isEncrypted = /^(-----BEGIN ENCRYPTED |Proc-Type: 4,ENCRYPTED)/m.test(pem)
    throw new Error(
      isEncrypted
        ? 'is a private key with a password: take that off, as `openssl pkey -in key.pem -out plain.pem` does'
        : 'is no PEM of a private key: to read a file, write ${file:/path}',
    )
  }
}

/** What is wrong with a private key, or with the algorithm that it is to sign with. Never shows the key. */
export function faultOfKey(
  pem: string,
  algorithm: string | undefined,
): { readonly field: 'key' | 'algorithm'; readonly message: string } | undefined {
  let usual: string
  try {
    usual = algorithmOf(parsePrivateKey(pem))
  } catch (error) {
    return { field: 'key', message: (error as Error).message }
  }
  const isRsa = usual === 'RS256' && /^[RP]S/.test(algorithm ?? '')
  const isPss = usual === 'PS256' && algorithm?.startsWith('PS') === true
  if (algorithm === undefined || algorithm === usual || isRsa || isPss) return undefined
  return { field: 'algorithm', message: `a key of this type signs with ${usual}` }
}

/** The usual algorithm of a key (RFC 7518 §3.1, RFC 8037). */
export function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string {
  return ALGORITHMS[asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType ?? ''] ?? 'ES256'
}

/** The usual algorithm by the curve of a key, or by its type if it has no curve. Any other key uses ES256. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  rsa: 'RS256',
  'rsa-pss': 'PS256',
  ed25519: 'EdDSA',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
}
