import { type Key, keyOf } from '../../clients/keys.ts'
import { endOfCertificate } from '../../net/certificate-end.ts'
import { countOf, roughly } from '../../schema/units.ts'
import type { Cause } from './cause.ts'
import type { Management } from './management.ts'

/** An expiry is told when it is nearer than this. The alerts use the same seven days. */
export const SOON_MS = 7 * 86_400_000
/** Automatic renewal is done long before: with less time left, it has failed. The alert SluiceCertificateExpired uses the same six hours. */
const LATE_MS = 6 * 3_600_000

/** Expiries that the gateway itself is to blame for: of its port's certificate, and of keys of its clients. */
export function* expiryCauses({
  config,
  clients,
  clock,
}: Pick<Management, 'config' | 'clients' | 'clock'>): Iterable<Cause> {
  const now = clock.wall()
  const { server, clients: configured = {} } = config()
  yield* certificateCauses(endOfCertificate(server.tls?.cert), now)
  for (const [name, { keys }] of Object.entries(configured)) {
    const todo = `Run npx sluice keys create --client ${name}, and add the hash that it prints to clients.${name}.keys.`
    yield* keyCauses(name, keys.map(keyOf), todo, now)
  }
  for (const { id, name, keys, archivedAt } of clients.all) {
    if (archivedAt !== undefined) continue
    yield* keyCauses(name, keys, `Make another key by POST /v1/clients/${id}/keys.`, now)
  }
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

/**
 * Keys that have expired are not told: old keys are meant to expire. A call with one is refused, which is told elsewhere. `toMake` says how
 * to make another key.
 */
function* keyCauses(client: string, keys: readonly Key[], toMake: string, now: number): Iterable<Cause> {
  const ends = keys.flatMap(({ expires = Infinity }) => (expires > now && expires - now < SOON_MS ? [expires] : []))
  if (ends.length === 0) return
  const inMs = Math.min(...ends) - now
  const expire =
    ends.length === 1 ? `expires in ${roughly(inMs)}` : `expire within 7 days, the first in ${roughly(inMs)}`
  const what = `${countOf(ends.length, 'key')} of the client ${client} ${expire}.`
  const todo = `${toMake} Give the new key to whoever calls as ${client}, and let the old one expire.`
  const about = `key of ${client} expires`
  yield { event: 'credential', severity: 'warning', about, alert: 'SluiceClientKeyExpires', what, todo }
}
