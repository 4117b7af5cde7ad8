import { X509Certificate } from 'node:crypto'

/** When a certificate expires, in milliseconds since 1970. A text that is no certificate fails when it is used. Here it is just not shown. */
export function endOfCertificate(pem: string | undefined): number | undefined {
  if (pem === undefined) return undefined
  try {
    return new X509Certificate(pem).validToDate.getTime()
  } catch {
    return undefined
  }
}
