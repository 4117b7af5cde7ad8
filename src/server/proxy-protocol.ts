import { isIPv4, isIPv6, SocketAddress } from 'node:net'

/**
 * What the first bytes of a connection are. `whole`: a complete header of `bytes` bytes; `address` is undefined if the header
 * names no client address (LOCAL, UNKNOWN or a Unix socket). `more`: the beginning of a header. `invalid`: not a header, and
 * `why` says the reason.
 */
export type ProxyHeader =
  | { readonly kind: 'whole'; readonly bytes: number; readonly address: string | undefined }
  | { readonly kind: 'more' }
  | { readonly kind: 'invalid'; readonly why: string }

const MORE: ProxyHeader = { kind: 'more' }

const V1 = Buffer.from('PROXY ')
/** The longest header of version 1, including the end of its line (proxy-protocol.txt §2.1). */
const V1_MOST_BYTES = 107
const V1_LINE = /^PROXY (?:UNKNOWN(?: .*)?|TCP([46]) ([\da-f:.]+) ([\da-f:.]+) (\d{1,5}) (\d{1,5}))$/i

const V2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const V2_HEAD_BYTES = 16
/** By the byte for family and protocol: the bytes of one address, and the bytes of both addresses with their ports. */
const V2_ADDRESSES: Readonly<Record<number, readonly [one: number, all: number]>> = {
  0x00: [0, 0],
  0x11: [4, 12],
  0x21: [16, 36],
  0x31: [108, 216],
}

/**
 * Reads a header of the PROXY protocol, version 1 or 2 (haproxy.org, proxy-protocol.txt §2). `mostBytes` bounds version 2 only:
 * version 1 has a bound of its own.
 */
export function readProxyHeader(seen: Buffer, mostBytes: number): ProxyHeader {
  if (beginsLike(seen, V2)) return readV2(seen, mostBytes)
  if (beginsLike(seen, V1)) return readV1(seen)
  return invalid('it is none')
}

/** Whether the bytes begin with the signature, or are a beginning of it. No bytes at all are one, too. */
function beginsLike(seen: Buffer, signature: Buffer): boolean {
  const length = Math.min(seen.length, signature.length)
  return seen.compare(signature, 0, length, 0, length) === 0
}

/** Whether the bytes begin with a whole signature. */
export function isProxyHeader(seen: Buffer): boolean {
  return (seen.length >= V1.length && beginsLike(seen, V1)) || (seen.length >= V2.length && beginsLike(seen, V2))
}

function readV1(seen: Buffer): ProxyHeader {
  const end = seen.subarray(0, V1_MOST_BYTES).indexOf('\r\n')
  if (end < 0) return seen.length < V1_MOST_BYTES ? MORE : invalid(`its line is longer than ${V1_MOST_BYTES} bytes`)
  const fields = V1_LINE.exec(seen.toString('latin1', 0, end))
  if (fields === null) return invalid('its line is not "PROXY TCP4|TCP6|UNKNOWN" with two addresses and two ports')
  const bytes = end + 2
  const [, family, source, destination, ...ports] = fields
  if (family === undefined) return { kind: 'whole', bytes, address: undefined }
  const isAddress = family === '4' ? isIPv4 : isIPv6
  if (!isAddress(source!) || !isAddress(destination!) || ports.some((port) => Number(port) > 65_535)) {
    return invalid('an address or a port in it is none')
  }
  return { kind: 'whole', bytes, address: addressOf(source!, family === '4' ? 'ipv4' : 'ipv6') }
}

function readV2(seen: Buffer, mostBytes: number): ProxyHeader {
  if (seen.length < V2_HEAD_BYTES) return MORE
  const [command, family] = [seen[12]!, seen[13]!]
  const bytes = V2_HEAD_BYTES + seen.readUInt16BE(14)
  if (command !== 0x20 && command !== 0x21)
    return invalid('its version is not 2, or its command neither LOCAL nor PROXY')
  if (bytes > mostBytes) return invalid('it is longer than server.maxHeaderBytes')
  if (seen.length < bytes) return MORE
  // LOCAL: the balancer itself connected, as for a health check. The protocol says to ignore the rest of the header.
  if (command === 0x20) return { kind: 'whole', bytes, address: undefined }
  const lengths = V2_ADDRESSES[family]
  if (lengths === undefined) return invalid('it is of no connection of TCP or of a Unix socket')
  const [one, all] = lengths
  const start = V2_HEAD_BYTES + all
  if (start > bytes || !areWhole(seen.subarray(start, bytes))) return invalid('its length is not that of what is in it')
  const source = seen.subarray(V2_HEAD_BYTES, V2_HEAD_BYTES + one)
  return { kind: 'whole', bytes, address: family === 0x31 ? undefined : addressIn(source) }
}

/** Whether the last TLV (type, length, value) ends where the header ends. The values of TLVs are not used. */
function areWhole(tlvs: Buffer): boolean {
  let at = 0
  while (at + 3 <= tlvs.length) at += 3 + tlvs.readUInt16BE(at + 1)
  return at === tlvs.length
}

function addressIn(bytes: Buffer): string | undefined {
  if (bytes.length === 0) return undefined
  if (bytes.length === 4) return bytes.join('.')
  return addressOf(bytes.toString('hex').match(/.{4}/g)!.join(':'), 'ipv6')
}

/** Writes an address as Node writes those of connections, so that the two can be compared as text. */
function addressOf(address: string, family: 'ipv4' | 'ipv6'): string {
  return new SocketAddress({ address, family }).address
}

function invalid(why: string): ProxyHeader {
  return { kind: 'invalid', why }
}
