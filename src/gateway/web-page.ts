import type { IncomingHttpHeaders } from 'node:http'
import { isIP } from 'node:net'
import { bareHost, isLocalhost, withoutBrackets } from '../net/address.ts'
import { Failure } from './failure.ts'
import type { Proxied } from './proxied.ts'
import type { Snapshot } from './snapshot.ts'

type Names = Pick<Snapshot, 'ownHosts' | 'hosts'>

interface Head {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly proxied?: Proxied | undefined
}

/**
 * Refuses what a web page sent to a gateway that wants no key. The gateway listens on loopback, but every page in a browser of this
 * machine can reach it: with the page's own Origin, or by a name of the page's that stands for 127.0.0.1 by now (DNS rebinding). The
 * page would act with the vendor's credential, and read the answers if the vendor lets all origins read.
 */
export function refuseWebPage(names: Names, { url, headers, proxied }: Head): Failure | undefined {
  const { host, origin } = headers
  // If the target is a whole URL, or came through the forward proxy, its host was checked already, and the Host field does not count.
  if (host !== undefined && proxied === undefined && url.startsWith('/') && !isOurs(names, host)) {
    return forbidden(
      `${host.slice(0, 253)} is no name of the gateway, so a web page may have sent this: call it as 127.0.0.1 or localhost, or add the name to server.hosts`,
    )
  }
  if (origin === undefined) {
    // Browsers send no Origin for an image or a link. It can't be read, but it costs quota, and a GET may change something.
    return headers['sec-fetch-site'] === 'cross-site'
      ? forbidden(`a web page of another site sent this: ${ADVICE}`)
      : undefined
  }
  const page = URL.parse(origin)
  if (page !== null && (page.host === host || isNamed(names, page.hostname))) return undefined
  return forbidden(`a web page sent this, as its Origin says: ${ADVICE}, or add the host of the page to server.hosts`)
}

const ADVICE = 'where clients is not configured only programs may call; configure clients, and send a key'

/** Whether a Host is an address or a name of the gateway. No page can make an address lead to another machine. */
function isOurs(names: Names, host: string): boolean {
  const name = bareHost(host)
  return isIP(withoutBrackets(name)) !== 0 || isLocalhost(name) || isNamed(names, name)
}

function isNamed({ ownHosts, hosts }: Names, name: string): boolean {
  return ownHosts.has(name) || hosts.has(name)
}

function forbidden(message: string): Failure {
  return new Failure('forbidden', message)
}
