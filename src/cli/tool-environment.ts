import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { BlockList } from 'node:net'
import { join } from 'node:path'
import { getCACertificates } from 'node:tls'
import { parseAddress, withoutBrackets } from '../net/address.ts'

/** Variables that name one file with all authorities that a tool trusts, in place of the system's. */
const BUNDLES = [
  'SSL_CERT_FILE', // OpenSSL: Python's ssl and httpx, Ruby; Go; rustls
  'REQUESTS_CA_BUNDLE',
  'CURL_CA_BUNDLE',
  'GIT_SSL_CAINFO',
  'PIP_CERT',
  'AWS_CA_BUNDLE',
  'CARGO_HTTP_CAINFO',
  'BUNDLE_SSL_CA_CERT',
  'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH',
]
/** Variables that name a file with authorities that a tool trusts besides the usual ones. */
const ADDITIONS = ['NODE_EXTRA_CA_CERTS', 'DENO_CERT']
const LOCAL = ['localhost', '127.0.0.1', '::1']
/** A trust store of Java needs one, though nothing in it is secret. */
const PASSWORD = 'changeit'

interface Way {
  /** The URL of the forward proxy, with the credentials of the client. */
  readonly proxy: URL
  /** PEM of the CA that ends TLS. */
  readonly ca: string
  /** Hosts that are to be asked through the proxy, whatever `NO_PROXY` says. */
  readonly hosts: readonly string[]
  /** Where files can be written for the tool to read. */
  readonly folder: string
}

interface ToolEnvironment {
  readonly env: NodeJS.ProcessEnv
  /** The entries of `NO_PROXY` that would have led the tool around the proxy. */
  readonly leftOut: readonly string[]
}

/** The environment in which tools of the usual runtimes go through the forward proxy, and trust its CA. */
export function toolEnvironment(env: NodeJS.ProcessEnv, { proxy, ca, hosts, folder }: Way): ToolEnvironment {
  const named = [...BUNDLES, ...ADDITIONS].flatMap((name) => readBundle(env[name]))
  const [system, bundled] = [getCACertificates('system'), getCACertificates('bundled')]
  const all = [...new Set([...(system.length > 0 ? system : bundled), ...named, ca].map((pem) => pem.trim()))]
  const bundle = join(folder, 'bundle.pem')
  const addition = join(folder, 'additions.pem')
  const store = join(folder, 'trust.jks')
  writeFileSync(bundle, `${all.join('\n')}\n`)
  writeFileSync(addition, `${[...new Set([...named, ca].map((pem) => pem.trim()))].join('\n')}\n`)
  writeFileSync(store, trustStore(all))
  const { href } = proxy
  const url = href.replace(/\/$/, '')
  const given = (env['NO_PROXY'] ?? env['no_proxy'] ?? '').split(/[\s,]+/)
  const entries = [...new Set(given)].filter((entry) => entry !== '')
  const isCovering = (entry: string): boolean => hosts.some((host) => covers(entry, host))
  const noProxy = [...new Set([...entries, ...LOCAL])].filter((entry) => !isCovering(entry)).join(',')
  return {
    env: {
      ...env,
      HTTPS_PROXY: url,
      https_proxy: url,
      HTTP_PROXY: url,
      http_proxy: url,
      NO_PROXY: noProxy,
      no_proxy: noProxy,
      NODE_USE_ENV_PROXY: '1',
      ...Object.fromEntries(BUNDLES.map((name) => [name, bundle])),
      ...Object.fromEntries(ADDITIONS.map((name) => [name, addition])),
      JAVA_TOOL_OPTIONS: [env['JAVA_TOOL_OPTIONS'], ...javaOptions(proxy, store, noProxy)].filter(Boolean).join(' '),
    },
    leftOut: entries.filter(isCovering),
  }
}

/**
 * Whether any tool takes this entry of `NO_PROXY` for that host, and so would go around the gateway. Tools disagree about ports and stars,
 * and about whether a name stands for all names that end with it, even within a label (requests).
 */
function covers(entry: string, host: string): boolean {
  const [network = '', bits] = entry.split('/')
  if (bits !== undefined) return isWithin(host, network, Number(bits))
  const bare = /^[^:]*:\d*$|^\[.*\]:\d*$/.test(entry) ? entry.replace(/:\d*$/, '') : entry
  const name = withoutBrackets(bare.toLowerCase())
    .replace(/^\*?\./, '')
    .replace(/\.$/, '')
  if (name === '') return false
  const glob = name.split('*').map(RegExp.escape).join('.*')
  const address = parseAddress(host)
  if (address === undefined) return new RegExp(`${glob}$`).test(host)
  return parseAddress(name)?.toString() === address.toString() || new RegExp(`^${glob}$`).test(host)
}

function isWithin(host: string, network: string, bits: number): boolean {
  const [address, first] = [parseAddress(host), parseAddress(network)]
  if (address === undefined || first === undefined || address.kind() !== first.kind()) return false
  const list = new BlockList()
  try {
    list.addSubnet(first.toString(), bits, first.kind())
  } catch {
    // No tool takes a network with so many bits.
    return false
  }
  return list.check(address.toString(), address.kind())
}

function javaOptions({ hostname, port }: URL, store: string, noProxy: string): string[] {
  const direct = noProxy.split(',').map((entry) => (entry.startsWith('.') ? `*${entry}` : entry))
  return [
    ...['http', 'https'].flatMap((scheme) => [`-D${scheme}.proxyHost=${hostname}`, `-D${scheme}.proxyPort=${port}`]),
    `-Dhttp.nonProxyHosts=${direct.join('|')}`,
    `-Djavax.net.ssl.trustStore=${store}`,
    `-Djavax.net.ssl.trustStoreType=JKS`,
    `-Djavax.net.ssl.trustStorePassword=${PASSWORD}`,
    // Otherwise Java sends a proxy no Basic credentials for a tunnel, even if the program has an Authenticator.
    '-Djdk.http.auth.tunneling.disabledSchemes=',
  ]
}

function readBundle(file: string | undefined): string[] {
  if (file === undefined || file === '') return []
  try {
    return readFileSync(file, 'utf8').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  } catch {
    // The tool itself says so.
    return []
  }
}

/** What the digest at the end of a JKS file is salted with, in every Java. */
const SALT = 'Mighty Aphrodite'

/** A trust store in Java's own format, JKS: every Java reads it, and it needs no keytool. */
function trustStore(certificates: readonly string[]): Buffer {
  const parts = [uint32(0xfeedfeed), uint32(2), uint32(certificates.length)]
  for (const [index, pem] of certificates.entries()) {
    const { raw } = new X509Certificate(pem)
    // A trusted certificate: its alias, when it was added, its type and itself.
    parts.push(uint32(2), utf(`ca-${index}`), Buffer.alloc(8), utf('X.509'), uint32(raw.length), raw)
  }
  const content = Buffer.concat(parts)
  const password = Buffer.from(PASSWORD, 'utf16le').swap16()
  return Buffer.concat([content, createHash('sha1').update(password).update(SALT).update(content).digest()])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function utf(text: string): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(text.length)
  return Buffer.concat([length, Buffer.from(text)])
}
