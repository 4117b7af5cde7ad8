import { type KeyObject, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { ListenerTls, UpstreamConfig } from '../schema/schema.ts'
import { parsePrivateKey } from '../credentials/signing-key.ts'
import type { Secret } from '../schema/secret.ts'
import type { Path, Report } from './problem.ts'

const REMEDY = ': to read a file, write ${file:/path}'

export function checkListenerTls(path: Path, tls: ListenerTls | undefined, report: Report): void {
  if (tls === undefined) return
  checkKeyPair(path, tls, report)
  checkAuthorities([...path, 'clientCa'], tls.clientCa, report)
  // Without clientCa no client is asked for a certificate, so nobody would be refused.
  if (tls.requireClientCertificate && tls.clientCa === undefined)
    report([...path, 'requireClientCertificate'], 'it needs clientCa: the authorities whose certificates are believed')
}

export function checkTls(path: Path, tls: UpstreamConfig['tls'], report: Report): void {
  if (tls === undefined) return
  const { cert, key, ca } = tls
  if (cert !== undefined && key !== undefined) checkKeyPair(path, { cert, key }, report)
  else if (cert !== undefined || key !== undefined) report(path, 'cert and key go together')
  checkAuthorities([...path, 'ca'], ca, report)
}

function checkKeyPair(path: Path, { cert, key }: { cert: string; key: Secret }, report: Report): void {
  const isCertificate = isPemOfCertificates(cert)
  if (!isCertificate) report([...path, 'cert'], `is no PEM of a certificate${REMEDY}`)
  let privateKey: KeyObject
  try {
    privateKey = parsePrivateKey(key.reveal())
  } catch (error) {
    return report([...path, 'key'], (error as Error).message)
  }
  if (!isCertificate) return
  if (!new X509Certificate(cert).checkPrivateKey(privateKey))
    return report([...path, 'key'], 'is not the key of the first certificate in cert')
  try {
    createSecureContext({ cert, key: key.reveal() })
  } catch (error) {
    report([...path, 'cert'], `can not be used for TLS (${(error as NodeJS.ErrnoException).code})`)
  }
}

/** Node takes any text for the authorities. If it finds no certificate in the text, it believes no authority at all. */
export function checkAuthorities(path: Path, pem: string | undefined, report: Report): void {
  if (pem !== undefined && !isPemOfCertificates(pem)) report(path, `is no PEM of a certificate${REMEDY}`)
}

function isPemOfCertificates(pem: string): boolean {
  const blocks = pem
    .split(/(?=-----BEGIN )/)
    .filter((block) => /^-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----/.test(block))
  try {
    return blocks.map((block) => new X509Certificate(block)).length > 0
  } catch {
    return false
  }
}
