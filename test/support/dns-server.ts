import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns'
import { once } from 'node:events'
import type { LookupFunction } from 'node:net'
import { onTestFinished } from 'vitest'

export interface DnsServer {
  /** The names that were asked for, each time. */
  readonly asked: readonly string[]
  /** Asks this server, and nobody else. */
  readonly lookup: LookupFunction
}

/** A name server on loopback that answers questions for IPv4 addresses by `answer`, which may change its mind. */
export async function startDnsServer(answer: (name: string) => readonly string[]): Promise<DnsServer> {
  const asked: string[] = []
  const socket = createSocket('udp4')
  socket.on('message', (query, { port, address }) => {
    const name = nameIn(query)
    asked.push(name)
    socket.send(response(query, answer(name)), port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  onTestFinished(() => void socket.close())
  const resolver = new Resolver()
  resolver.setServers([`127.0.0.1:${socket.address().port}`])
  const lookup: LookupFunction = (hostname, _, callback) => {
    resolver.resolve4(hostname, (error, addresses) => {
      if (error === null)
        callback(
          null,
          addresses.map((address) => ({ address, family: 4 })),
        )
      else callback(error, '')
    })
  }
  return { asked, lookup }
}

const HEADER_BYTES = 12

/** Of a query with one question (RFC 1035 §4.1.2). */
function nameIn(query: Buffer): string {
  const labels: string[] = []
  for (let at = HEADER_BYTES; query[at] !== 0; at += query[at]! + 1) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!))
  }
  return labels.join('.')
}

/** Repeats the question and adds an A record for each address, which nobody may keep. */
function response(query: Buffer, addresses: readonly string[]): Buffer {
  const questionEnd = query.indexOf(0, HEADER_BYTES) + 5
  const header = Buffer.alloc(HEADER_BYTES)
  query.copy(header, 0, 0, 2)
  header.writeUInt16BE(0x8180, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(addresses.length, 6)
  // A pointer to the name in the question; type A, class IN, no time to live, four bytes.
  const head = [0xc0, HEADER_BYTES, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]
  const answers = addresses.map((address) => Buffer.from([...head, ...address.split('.').map(Number)]))
  return Buffer.concat([header, query.subarray(HEADER_BYTES, questionEnd), ...answers])
}
