import { X509Certificate } from 'node:crypto'

/** When a certificate expires, in milliseconds since 1970. A text that is no certificate fails when it is used. Here it is just not shown. */
export function endOfCertificate(pem: string | undefined): number | undefined {
  return lifeOfCertificate(pem)?.end
}

/** The same, with how long it is valid altogether, in milliseconds. */
export function lifeOfCertificate(pem: string | undefined): { end: number; validMs: number } | undefined {
  if (pem === undefined) return undefined
  try {
    const { validFromDate, validToDate } = new X509Certificate(pem)
    const end = validToDate.getTime()
    return { end, validMs: end - validFromDate.getTime() }
  } catch {
    return undefined
  }
}
