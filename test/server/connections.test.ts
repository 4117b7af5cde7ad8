import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { boundConnections } from '../../src/server/connections.ts'

it('tells of an address with too many connections once, also if all of them end in between', async () => {
  const told: string[] = []
  const server = createServer((socket) => void socket.on('error', () => undefined).resume())
  boundConnections(server, { most: 1, isExempt: () => false, onSurplus: (address) => void told.push(address) })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const opened = async (): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined)
    await once(socket, 'connect')
    return socket
  }
  const connections = (): Promise<number> =>
    new Promise((resolve) => void server.getConnections((_, count) => resolve(count)))

  for (let i = 0; i < 3; i++) {
    const held = await opened()
    await once(await opened(), 'close')
    held.destroy()
    await expect.poll(connections).toBe(0)
  }
  expect(told).toEqual(['127.0.0.1'])
})
