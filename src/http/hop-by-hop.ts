/** Fields that belong to one connection only, so that a proxy drops them in both directions (RFC 9110 §7.6.1). */
export const HOP_BY_HOP: readonly string[] =
  'connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade http2-settings'.split(
    ' ',
  )

/** Fields of a request that a proxy does not pass on as they are: it writes its own, or the transport does. */
const REQUEST_FIELDS = new Set([
  ...HOP_BY_HOP,
  ...'host content-length expect via x-correlation-id x-forwarded-for x-forwarded-host x-forwarded-proto'.split(' '),
])

/** Whether a request goes upstream without the client's field of that lower-case name, or with another in its place. */
export function isMadeAnew(lowerName: string): boolean {
  return REQUEST_FIELDS.has(lowerName)
}
