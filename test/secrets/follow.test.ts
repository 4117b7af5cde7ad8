import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { Secret } from '../../src/schema/secret.ts'
import { SecretFollower } from '../../src/secrets/follow.ts'
import { openSources } from '../../src/secrets/open.ts'
import { systemClock } from '../../src/time/clock.ts'
import { newFolder } from '../support/gateway.ts'

/** A Vault that takes connections and never answers. It knows how many callers have given up. */
async function startHungVault() {
  const sockets = new Set<Socket>()
  const vault = { url: '', givenUp: 0, end: () => undefined as void }
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined).on('close', () => vault.givenUp++)
    socket.resume()
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  vault.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  vault.end = () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  onTestFinished(vault.end)
  return vault
}

it('a new value of a file waits for no other source, neither for a call that was refused nor for another file', async () => {
  const folder = newFolder()
  const secretOf = (text: string, value: string) => Object.assign(new Secret(value), { template: { text, folder } })
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text)
  write('a', 'a1')
  write('b', 'b1')
  const a = secretOf('${file:a}', 'a1')
  const b = secretOf('${file:b}', 'b1')
  const hung = await startHungVault()
  const vault = { url: hung.url, token: 'vault-token' }
  const upstreams = { x: { url: 'http://127.0.0.1:9', accounts: { main: {} } } }
  const sources = openSources(checkConfig({ secrets: { vault }, upstreams }, 'test'), systemClock)
  const { logger } = createLog({ level: 'silent', format: 'json' })
  const follower = new SecretFollower([a, b, secretOf('${vault:kv/x#f}', 'v1')], sources, logger)
  onTestFinished(() => follower.close())
  void follower.start()
  follower.serve()
  // The first read is over.
  await a.lookAgain!()
  write('a', 'a2')
  await a.lookAgain!()
  expect(a.reveal()).toBe('a2')
  write('b', 'b2')
  await expect.poll(() => b.reveal()).toBe('b2')
  expect(hung.givenUp).toBe(0)
  // Or else the last wait for it would be part of the test.
  hung.end()
})
