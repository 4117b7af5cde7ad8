import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Redis } from 'ioredis'
import { expect, it, onTestFinished, vi } from 'vitest'
import { connectRedis } from '../../src/redis/connection.ts'
import type { FailoverDetector, SentinelConnector } from '../../src/redis/sentinels.ts'
import { freePort } from '../support/find-redis.ts'
import { storeOf } from '../support/ledger-load.ts'
import { until } from '../support/redis-topologies.ts'

/** A server that says it is a master, or a sentinel that names `master`. */
async function fake(
  master?: () => number,
): Promise<{ port: number; connections: Set<Socket>; listeners: Set<Socket>; say(news: string): void }> {
  const connections = new Set<Socket>()
  const listeners = new Set<Socket>()
  const server = createServer((socket) => {
    connections.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => void (connections.delete(socket), listeners.delete(socket)))
    socket.on('data', (sent) => {
      for (const [, name] of sent.toString('latin1').matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const command = name!.toLowerCase()
        if (command === 'hello') socket.write('%1\r\n$5\r\nproto\r\n:3\r\n')
        else if (command === 'info') socket.write('$22\r\nrole:master\r\nloading:0\r\n')
        else if (command === 'subscribe') {
          listeners.add(socket)
          socket.write('>3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n')
        } else if (command === 'sentinel') {
          const port = String(master!())
          const isList = sent.toString('latin1').toLowerCase().includes('\r\nsentinels\r\n')
          socket.write(isList ? '*0\r\n' : `*2\r\n$9\r\n127.0.0.1\r\n$${port.length}\r\n${port}\r\n`)
        } else socket.write('+OK\r\n')
      }
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const socket of connections) socket.destroy()
    server.close()
  })
  const say = (news: string): void => {
    for (const socket of listeners)
      socket.write(`>3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$${news.length}\r\n${news}\r\n`)
  }
  return { port: (server.address() as AddressInfo).port, connections, listeners, say }
}

function connectBy(sentinels: readonly { port: number }[]): Redis {
  const store = { kind: 'redis', sentinels: sentinels.map(({ port }) => `127.0.0.1:${port}`) }
  const redis = connectRedis(storeOf(store)) as Redis
  onTestFinished(() => redis.disconnect())
  return redis
}

it('leaves an old master if the sentinel that named it hears of the new one before it is listened to', async () => {
  const [old, master] = [await fake(), await fake()]
  let asked = 0
  const late = await fake(() => (asked++ === 0 ? old.port : master.port))
  const redis = connectBy([late])
  await until(async () => redis.status === 'ready' && redis.stream.remotePort === master.port)
})

it('leaves an old master that one sentinel goes on to name, and stays with the master that the others name', async () => {
  const [old, master] = [await fake(), await fake()]
  const sentinels = [await fake(() => old.port), await fake(() => master.port), await fake(() => master.port)]
  const redis = connectBy(sentinels)
  await until(async () => redis.status === 'ready' && redis.stream.remotePort === master.port)
  const { stream } = redis
  const { connector } = redis as unknown as { connector: SentinelConnector & { failoverDetector: FailoverDetector } }
  await until(async () => sentinels.every(({ listeners }) => listeners.size === 1))
  // Each is asked once it is listened to. The answers to these questions come behind those.
  const asked = Object.create(connector) as SentinelConnector
  for (const { address } of connector.failoverDetector.sentinels) await asked.resolve(address)
  expect([redis.stream === stream, stream.writableEnded]).toEqual([true, false])
})

it('stays with the master when a sentinel tells late that it is master, or of a master of another name', async () => {
  const [master, next] = [await fake(), await fake()]
  let named = master.port
  const sentinel = await fake(() => named)
  const redis = connectBy([sentinel])
  await until(async () => redis.status === 'ready' && sentinel.listeners.size === 1)
  sentinel.say(`mymaster 127.0.0.1 1 127.0.0.1 ${master.port}`)
  sentinel.say('other 127.0.0.1 1 127.0.0.1 2')
  const { connector } = redis as unknown as { connector: SentinelConnector & { failoverDetector: FailoverDetector } }
  // The answer comes behind what was said.
  await connector.failoverDetector.sentinels[0]!.client.ping()
  expect(redis.stream.writableEnded).toBe(false)
  named = next.port
  sentinel.say(`mymaster 127.0.0.1 ${master.port} 127.0.0.1 ${next.port}`)
  await until(async () => redis.status === 'ready' && redis.stream.remotePort === next.port)
})

it('tries a sentinel that is away again and again, and writes nothing to stderr', async () => {
  const written = vi.spyOn(console, 'error').mockImplementation(() => undefined)
  onTestFinished(() => written.mockRestore())
  const master = await fake()
  const sentinel = await fake(() => master.port)
  const redis = connectBy([sentinel, { port: await freePort() }])
  await until(async () => redis.status === 'ready' && sentinel.listeners.size === 1)
  const { connector } = redis as unknown as { connector: { failoverDetector: FailoverDetector } }
  const { client } = connector.failoverDetector.sentinels[1]!
  // `once` of node:events would take the error for its own.
  for (let n = 0; n < 2; n++) await new Promise((resolve) => client.once('reconnecting', resolve))
  expect(written).not.toHaveBeenCalled()
})
