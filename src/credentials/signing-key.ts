import { createPrivateKey, type KeyObject } from 'node:crypto'
import { jose } from '../packages/jose.ts'
import type { Secret } from '../schema/secret.ts'

/** Imports a private key in any PEM form, for the given algorithm or the usual one of its type. */
export function importSigningKey(pem: Secret, algorithm: string | undefined): Promise<CryptoKey> {
  const key = parsePrivateKey(pem.reveal())
  const pkcs8 = key.export({ type: 'pkcs8', format: 'pem' })
  return jose().importPKCS8(pkcs8, algorithm ?? algorithmOf(key)!)
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
  let key: KeyObject
  try {
    key = parsePrivateKey(pem)
  } catch (error) {
    return { field: 'key', message: (error as Error).message }
  }
  const usual = algorithmOf(key)
  // RFC 7518 §3.3 demands so many bits, and the library signs with no fewer.
  if (usual === undefined || key.asymmetricKeyDetails!.modulusLength! < 2_048)
    return { field: 'key', message: SIGNING_KEYS }
  const isRsa = usual === 'RS256' && /^[RP]S/.test(algorithm ?? '')
  if (algorithm === undefined || algorithm === usual || isRsa) return undefined
  return { field: 'algorithm', message: `a key of this type signs with ${usual}` }
}

const SIGNING_KEYS = 'can sign no token: it must be RSA of at least 2048 bits, P-256, P-384, P-521 or Ed25519'

/** The usual algorithm of a key (RFC 7518 §3.1, RFC 8037); undefined if it can sign no token. */
export function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string | undefined {
  return ALGORITHMS[asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType ?? '']
}

/** The usual algorithm by the curve of a key, or by its type if it has no curve. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  rsa: 'RS256',
  ed25519: 'EdDSA',
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
}
