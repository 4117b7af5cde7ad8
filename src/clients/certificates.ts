import type { X509Certificate } from 'node:crypto'
import type { PeerCertificate } from 'node:tls'
import type { ClientScope } from '../schema/client-schema.ts'

/** What a certificate must contain. Every field of the rule must match. */
export type CertificateRule = NonNullable<ClientScope['certificates']>[number]

/** The part of a TLS socket that identifies the peer. */
interface Secured {
  readonly authorized: boolean
  getPeerX509Certificate(): X509Certificate | undefined
  /** Null once the connection is closed. */
  getPeerCertificate(): PeerCertificate | null
}

/** The contents of a certificate that a trusted authority has issued. */
export interface Presented {
  readonly subject: Readonly<Record<string, string | readonly string[]>>
  readonly names: readonly string[]
  /** Milliseconds since 1970 from which it proves nothing. */
  readonly expires: number
}

export function certificateOf(connection: object): Presented | undefined {
  if (!('authorized' in connection) || connection.authorized !== true) return undefined
  const socket = connection as unknown as Secured
  const certificate = socket.getPeerX509Certificate()
  const subject = socket.getPeerCertificate()?.subject
  if (certificate === undefined || subject === undefined) return undefined
  return {
    subject: subject as unknown as Presented['subject'],
    names: namesIn(certificate.subjectAltName ?? ''),
    expires: certificate.validToDate.getTime(),
  }
}

export function fitsCertificate(
  { subject = {}, san }: CertificateRule,
  presented: Omit<Presented, 'expires'>,
): boolean {
  if (san !== undefined && !presented.names.includes(san)) return false
  return Object.entries(subject).every(([field, value]) => [presented.subject[field]].flat().includes(value))
}

/**
 * Splits a list of alternative names. Node quotes a name that contains a comma or a quote, so that one name can't pass
 * for two.
 */
function namesIn(text: string): string[] {
  return (text.match(/(?:[^",]|"(?:[^"\\]|\\.)*")+/g) ?? []).map((name) => name.trim())
}
