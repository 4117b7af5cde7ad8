import { once } from 'node:events'
import { type ClientHttp2Session, connect } from 'node:http2'
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/** As much as HTTP/2 allows: its flow control holds nothing back. */
const WIDE = 2 ** 31 - 1
/** So much it reads before it stops. */
const TAKEN_BYTES = 200_000

export interface StuckClient {
  readonly session: ClientHttp2Session
  /** It reads again. */
  resume(): void
}

/** A client of HTTP/2 that soon reads nothing more from its connection, while it says that it takes everything. */
export async function connectStuck(url: string): Promise<StuckClient> {
  let server: Socket | undefined
  let isStuck = true
  const relay = createServer((client) => {
    const { port, hostname } = new URL(url)
    server = connectTcp(Number(port), hostname)
    client.on('error', () => undefined).pipe(server)
    let taken = 0
    server.on('error', () => undefined).on('close', () => client.destroy())
    server.on('data', (chunk) => {
      client.write(chunk)
      taken += chunk.length
      if (isStuck && taken > TAKEN_BYTES) server!.pause()
    })
  })
  await once(relay.listen(0, '127.0.0.1'), 'listening')
  const session = connect(`http://127.0.0.1:${(relay.address() as AddressInfo).port}`, {
    settings: { initialWindowSize: WIDE },
  })
  session.on('error', () => undefined)
  onTestFinished(() => {
    session.destroy()
    server?.destroy()
    relay.close()
  })
  await once(session, 'connect')
  session.setLocalWindowSize(WIDE)
  return {
    session,
    resume() {
      isStuck = false
      server!.resume()
    },
  }
}
