import { type Key, keyOf } from '../../clients/keys.ts'
import { endOfCertificate } from '../../net/certificate-end.ts'
import { countOf, roughly } from '../../schema/units.ts'
import type { Cause } from './cause.ts'
import type { Management } from './management.ts'

/** What expires within this time is told. The alerts have the same. */
export const SOON_MS = 7 * 86_400_000
/** Who renews certificates has done so before. The alert SluiceCertificateExpired has the same. */
const LATE_MS = 6 * 3_600_000

/** What of the gateway's own expires: the certificate of its port, and keys of clients. */
export function* expiryCauses({
  config,
  clients,
  clock,
}: Pick<Management, 'config' | 'clients' | 'clock'>): Iterable<Cause> {
  const now = clock.wall()
  const { server, clients: configured = {} } = config()
  yield* certificateCauses(endOfCertificate(server.tls?.cert), now)
  for (const [name, { keys }] of Object.entries(configured)) yield* keyCauses(name, keys.map(keyOf), now)
  for (const { name, keys, archivedAt } of clients.all) if (archivedAt === undefined) yield* keyCauses(name, keys, now)
}

function* certificateCauses(endsAt: number | undefined, now: number): Iterable<Cause> {
  if (endsAt === undefined || endsAt - now >= SOON_MS) return
  const event = 'credential'
  const todo =
    'Put a new certificate into the files of server.tls: it is taken over without a restart. Then find out why nobody renewed it.'
  const inMs = endsAt - now
  if (inMs <= 0) {
    const what = 'The certificate of server.tls has expired: no client connects.'
    yield { event, severity: 'failing', about: 'server.tls expired', alert: 'SluiceCertificateExpired', what, todo }
    return
  }
  const isLate = inMs < LATE_MS
  const alert = isLate ? 'SluiceCertificateExpired' : 'SluiceCertificateExpires'
  const what = `The certificate of server.tls expires in ${roughly(inMs)}.`
  yield { event, severity: isLate ? 'failing' : 'warning', about: 'server.tls expires', alert, what, todo }
}

/** Keys that have expired are not told: that is how old ones end. Whoever still uses one is refused, which is told. */
function* keyCauses(client: string, keys: readonly Key[], now: number): Iterable<Cause> {
  const ends = keys.flatMap(({ expires = Infinity }) => (expires > now && expires - now < SOON_MS ? [expires] : []))
  if (ends.length === 0) return
  const inMs = Math.min(...ends) - now
  const what = `${countOf(ends.length, 'key')} of the client ${client} ${ends.length === 1 ? 'expires' : 'expire'} in ${roughly(inMs)}.`
  const todo = `Make another one beside it (npx sluice keys create --client ${client}, or POST /v1/clients/ID/keys), and give that to its tools.`
  const about = `key of ${client} expires`
  yield { event: 'credential', severity: 'warning', about, alert: 'SluiceClientKeyExpires', what, todo }
}
