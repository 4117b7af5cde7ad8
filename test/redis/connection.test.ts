import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { connectedInTime, connectRedis } from '../../src/redis/connection.ts'
import { deadPort } from '../support/find-redis.ts'
import { storeOf } from '../support/ledger-load.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('keeps nothing of those who waited in vain for a Redis that is away', async () => {
  const redis = connectRedis(storeOf({ kind: 'redis', url: `redis://127.0.0.1:${await deadPort()}` }))
  onTestFinished(() => redis.disconnect())
  const clock = new SimulatedClock()
  const before = redis.listenerCount('ready')
  for (let i = 0; i < 20; i++) {
    const connected = connectedInTime(redis, clock)
    const refused = expect(connected).rejects.toThrow(/no connection in time|ECONNREFUSED/)
    await clock.advance(2_000)
    await refused
  }
  expect(redis.listenerCount('ready')).toBe(before)
})

it.each([
  ['a null', '_\r\n'],
  ['a null of RESP2', '$-1\r\n'],
  ['a list that is null', '*-1\r\n'],
  ['a message without a kind', '>1\r\n_\r\n'],
  ['another reply', '+OK\r\n'],
  ['a length that leads back to its own beginning', '+OK\r\n$%\r\nxxxx'],
])('gives up a connection on which %s comes that nobody asked for, and makes another', async (_, unasked) => {
  const connections: Socket[] = []
  // Only its first connection is out of order. No real server is, but what stands between may be.
  const server = createServer((socket) => {
    connections.push(socket)
    const isFirst = connections.length === 1
    socket.on('error', () => undefined)
    socket.on('data', (sent) => {
      for (const [, name] of sent.toString('latin1').matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const command = name!.toLowerCase()
        if (command === 'hello') socket.write('%1\r\n$5\r\nproto\r\n:3\r\n')
        else if (command === 'info') socket.write('$9\r\nloading:0\r\n')
        else socket.write(command === 'ping' && isFirst ? `+PONG\r\n${unasked}` : '+PONG\r\n')
      }
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const redis = connectRedis(storeOf({ kind: 'redis', url: `redis://127.0.0.1:${port}` }))
  onTestFinished(() => {
    redis.disconnect()
    for (const connection of connections) connection.destroy()
    server.close()
  })
  await isReady(redis)
  const again = isReady(redis)
  await expect(redis.ping()).resolves.toBe('PONG')
  await again
  await expect(redis.ping()).resolves.toBe('PONG')
})

/** Not `once` of node:events, which gives up at an error. */
function isReady(redis: ReturnType<typeof connectRedis>): Promise<void> {
  return new Promise((resolve) => void redis.once('ready', resolve))
}
