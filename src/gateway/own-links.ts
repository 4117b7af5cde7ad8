import { AUTHORITY } from './absolute-target.ts'
import type { Call } from './call.ts'
import { proxiedOn } from './proxied.ts'

/** Lower-case names of the response fields whose links are followed by clients. */
const FIELDS: ReadonlySet<string> = new Set(['location', 'content-location', 'link'])

/**
 * Makes the links in a response that lead to the upstream lead to the gateway, as the client addressed it. A client that follows them
 * still goes through the gateway, where it has its credential and is counted. Links to any other origin stay, and so do bodies.
 * Changes `headers` in place (name, value, …; the upstream's names in lower case). The cache keeps the links unchanged, since other
 * clients may use another address.
 */
export function leadToGateway(call: Call, headers: string[]): void {
  if (call.upstream?.config.ownLinks !== 'rewrite') return
  // A client of the forward proxy goes to the upstream by its own name.
  if (proxiedOn(call.request.socket) !== undefined) return
  let links: Links | undefined
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!
    if (!FIELDS.has(name)) continue
    links ??= new Links(call)
    headers[i + 1] = name === 'link' ? links.list(headers[i + 1]!) : links.reference(headers[i + 1]!)
  }
}

/**
 * The targets of a Link field (RFC 8288 §3), between quoted parameters that may look like one. A quote without an end reaches to the
 * end of the text.
 */
const TARGETS = /<([^<>]*)>|"(?:[^"\\]|\\[^])*(?:"|\\?$)/g
const ABSOLUTE = /^(\s*)([a-z][a-z\d+.-]*:)?\/\/([^/?#\s]+)/i

class Links {
  readonly #call: Call
  /** The gateway's origin; undefined if the client named no host. */
  readonly #origin: string | undefined
  readonly #prefix: string

  constructor(call: Call) {
    const { request, target, prefix } = call
    const addressed = call.addressedBy?.(request) ?? {}
    const scheme = addressed.scheme ?? ('encrypted' in request.socket ? 'https' : 'http')
    const host = addressed.host ?? target?.host ?? ''
    this.#call = call
    this.#origin = AUTHORITY.test(host) ? `${scheme}://${host}` : undefined
    this.#prefix = (addressed.prefix ?? '') + prefix
  }

  list(value: string): string {
    return value.replace(TARGETS, (whole, reference?: string) =>
      reference === undefined ? whole : `<${this.reference(reference)}>`,
    )
  }

  /** A reference to a URL, absolute or not (RFC 3986 §4.1). */
  reference(value: string): string {
    const { url, basePath } = this.#call.upstream!
    const [before, , scheme = url.protocol, authority] = ABSOLUTE.exec(value) ?? []
    if (before === undefined) {
      // A path from the root gets the gateway's prefix. Any other relative reference is relative to the path of the call.
      return isBelow(value, basePath) && value.startsWith('/') ? this.#prefix + value.slice(basePath.length) : value
    }
    const rest = value.slice(before.length)
    if (
      authority!.includes('@') ||
      URL.parse(`${scheme}//${authority!}`)?.origin !== url.origin ||
      !isBelow(rest, basePath)
    )
      return value
    return `${this.#origin ?? ''}${this.#prefix}${rest.slice(basePath.length)}`
  }
}

/** Whether a path, with what follows it, is that of the upstream or below it. */
function isBelow(path: string, basePath: string): boolean {
  return path.startsWith(basePath) && /^(?:[/?#]|$)/.test(path.slice(basePath.length))
}
