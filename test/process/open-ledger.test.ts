import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { inspect } from 'node:util'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { systemClock } from '../../src/time/clock.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { chargeScript } from '../../src/ledger/redis/script.ts'
import { openLedger } from '../../src/process/open-ledger.ts'
import { freePort } from '../support/find-redis.ts'
import { harnessConfig } from '../support/gateway.ts'

/** What is logged of a Redis that does not let the gateway in. */
async function loggedErrorOf(store: object): Promise<string> {
  const config = checkConfig({ ...harnessConfig('http://x'), store: { kind: 'redis', ...store } }, 'test')
  const { logger } = createLog({ level: 'silent', format: 'json' })
  const logged = new Promise<unknown>((resolve) => void (logger.error = (...line: unknown[]) => resolve(line)))
  const opening = openLedger(config.store, { clock: systemClock, logger })
  onTestFinished(async () => (await opening).close())
  return inspect(await logged, { depth: null, showHidden: true })
}

it('logs what Redis says to a wrong password, but not the password', async () => {
  const { host } = new URL(inject('redisUrl'))
  for (const store of [
    { url: `redis://bob:topsecret@${host}` },
    { url: `redis://${host}`, username: 'bob', password: 'topsecret' },
    { cluster: [host], username: 'bob', password: 'topsecret' },
  ]) {
    const logged = await loggedErrorOf({ ...store, commandTimeout: '2s' })
    expect(logged).toContain('WRONGPASS')
    expect(logged).not.toContain('topsecret')
  }
})

it('does not log the password that a server repeats because it does not know the command', async () => {
  const server = createServer((socket) => {
    socket.on('data', (data: Buffer) => {
      for (const _ of data.toString().matchAll(/^\*\d+\r$/gm))
        socket.write("-ERR unknown command 'AUTH', with args beginning with: 'bob' 'topsecret' \r\n")
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const logged = await loggedErrorOf({ url: `redis://bob:topsecret@127.0.0.1:${port}` })
  expect(logged).toContain("unknown command 'AUTH'")
  expect(logged).not.toContain('topsecret')
})

it('says once, in the log only, that a Redis wants no password', async () => {
  // As Redis 5 and older: one that is newer takes any password for a user that has none.
  const server = createServer((socket) => {
    socket
      .on('error', () => undefined)
      .on('data', (data: Buffer) => {
        for (const [, command] of data.toString().matchAll(/^\*\d+\r\n\$\d+\r\n(\w+)/gm)) {
          if (command === 'hello') socket.write("-ERR unknown command 'hello'\r\n")
          else if (command === 'auth') socket.write('-ERR Client sent AUTH, but no password is set\r\n')
          else if (command === 'info') socket.write('$-1\r\n')
          else socket.write('+OK\r\n')
        }
      })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const config = { ...harnessConfig('http://x'), store: { kind: 'redis', url: `redis://:topsecret@127.0.0.1:${port}` } }
  const lines: string[] = []
  const logger = pino({}, { write: (line: string) => void lines.push(line) })
  const warn = vi.spyOn(console, 'warn')
  onTestFinished(() => warn.mockRestore())
  const opening = openLedger(checkConfig(config, 'test').store, { clock: systemClock, logger })
  onTestFinished(async () => (await opening).close())
  await expect.poll(() => lines.filter((line) => line.includes('wants no password'))).toHaveLength(1)
  expect(warn).not.toHaveBeenCalled()
  expect(lines.join()).not.toContain('topsecret')
})

it('has sent Redis the script, and run it, before it is opened: the first charge takes no longer than others', async () => {
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const { store } = checkConfig(
    {
      ...harnessConfig('http://x'),
      store: { kind: 'redis', url: inject('redisUrl'), commandTimeout: '2s', prefix: `warm-${process.pid}` },
    },
    'test',
  )
  const { logger } = createLog({ level: 'silent', format: 'json' })
  const ledger = await openLedger(store, { clock: systemClock, logger })
  onTestFinished(() => ledger.close())
  const script = chargeScript()
  expect(await redis.script('EXISTS', createHash('sha1').update(script).digest('hex'))).toEqual([1])
  expect(await redis.exists(`${store.prefix}:3:{warm-up}:limits`)).toBe(1)
})

it('waits for a Redis that starts after the gateway', async () => {
  const port = await freePort()
  const { store } = checkConfig(
    { ...harnessConfig('http://x'), store: { kind: 'redis', url: `redis://127.0.0.1:${port}`, commandTimeout: '2s' } },
    'test',
  )
  const { logger } = createLog({ level: 'silent', format: 'json' })
  const refused = new Promise<void>((resolve) => void (logger.error = () => resolve()))
  const opening = openLedger(store, { clock: systemClock, logger })
  await refused
  const redis = new URL(inject('redisUrl'))
  const started = createServer((socket) => {
    const inner = connect(Number(redis.port), redis.hostname)
    socket.pipe(inner).on('error', () => socket.destroy())
    inner.pipe(socket).on('error', () => inner.destroy())
  })
  await once(started.listen(port, '127.0.0.1'), 'listening')
  onTestFinished(() => void started.close())
  const ledger = await opening
  onTestFinished(() => ledger.close())
  expect(ledger.isReady).toBe(true)
})
