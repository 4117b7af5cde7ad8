import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { type Fault, FaultProxy, type FaultProxyOptions } from './fault-proxy.ts'
import { startServer } from './gateway.ts'
import { call, RawClient } from './http.ts'

const ANSWER = 'x'.repeat(100)

describe('the fault proxy, between client and server', () => {
  it('changes nothing while it has no fault, over a connection that is kept', async () => {
    const { proxy, seen } = await start()
    const client = await RawClient.connect(proxy.url)
    for (let i = 1; i <= 3; i++) {
      client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
      await client.until(new RegExp(`(?:x{100}[^]*){${i}}`))
    }
    client.socket.destroy()
    expect(seen).toHaveLength(3)
    expect(proxy).toMatchObject({ connections: 1, faults: 0 })
    await expect.poll(() => proxy.open).toBe(0)
  })

  it.each<[Fault, RegExp, number]>([
    [{ kind: 'refuse' }, /^$/, 0],
    [{ kind: 'reset', at: 'before-headers' }, /^$/, 1],
    [{ kind: 'reset', at: 'after-headers' }, /\r\n\r\n$/, 1],
    [{ kind: 'reset', at: 'mid-body' }, /\r\n\r\nx{3}$/, 1],
    [{ kind: 'half-close', at: 'before-headers' }, /^$/, 1],
    [{ kind: 'half-close', at: 'after-headers' }, /\r\n\r\n$/, 1],
    [{ kind: 'half-close', at: 'mid-body' }, /\r\n\r\nx{3}$/, 1],
    [{ kind: 'garbage', at: 'before-headers' }, /^(?!HTTP)[^]{512}$/, 1],
    [{ kind: 'garbage', at: 'mid-body' }, /\r\n\r\nx{3}[^]{512}$/, 1],
  ])('can let the answer end with %o', async (fault, received, arrived) => {
    const { proxy, seen } = await start()
    proxy.set(fault)
    const client = await RawClient.connect(proxy.url)
    client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(await client.closed()).toMatch(received)
    expect(seen).toHaveLength(arrived)
    expect(proxy.faults).toBe(1)
  })

  it.each<[Fault, RegExp]>([
    [{ kind: 'latency', ms: 5, jitterMs: 5 }, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx{100}$/],
    [{ kind: 'drip', bytes: 40, everyMs: 1 }, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx{100}$/],
    [{ kind: 'oversized-headers', bytes: 100_000 }, /\r\nX-Oversized: x{100000}\r\n\r\nx{100}$/],
  ])('can let it come whole with %o', async (fault, received) => {
    const { proxy } = await start()
    proxy.set(fault)
    const client = await RawClient.connect(proxy.url)
    client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(await client.until(/\r\n\r\nx{100}/)).toMatch(received)
    client.socket.destroy()
  })

  it.each<[Fault, RegExp]>([
    [{ kind: 'stall', at: 'before-headers' }, /^$/],
    [{ kind: 'stall', at: 'after-headers' }, /\r\n\r\n$/],
    [{ kind: 'stall', at: 'mid-body' }, /\r\n\r\nx{3}$/],
  ])('can hold back the rest with %o', async (fault, received) => {
    const { proxy, served } = await start()
    proxy.set(fault)
    const client = await RawClient.connect(proxy.url)
    client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await served
    await new Promise((resolve) => void setTimeout(resolve, 50))
    expect(client.received).toMatch(received)
    expect(client.isClosed).toBe(false)
    client.socket.destroy()
    await expect.poll(() => proxy.open).toBe(0)
  })

  it('can stop reading what the client sends', async () => {
    const { proxy } = await start()
    proxy.set({ kind: 'stall', at: 'request' })
    const client = await RawClient.connect(proxy.url)
    client.write('PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n')
    const piece = 'x'.repeat(1_048_576)
    for (let i = 0; i < 64; i++) client.write(piece)
    await new Promise((resolve) => void setTimeout(resolve, 50))
    expect(client.socket.writableLength).toBeGreaterThan(32 * 1_048_576)
    client.socket.destroy()
  })

  it('gives so many exchanges a fault as it is told, and heals', async () => {
    const { proxy } = await start()
    proxy.set({ kind: 'reset', at: 'before-headers' }, 1)
    await expect(call(proxy.url, '/')).rejects.toThrow('ECONNRESET')
    expect((await call(proxy.url, '/')).body).toBe(ANSWER)
  })

  it('chooses the same for the same seed', async () => {
    const choices = async (seed: number): Promise<boolean[]> => {
      const { proxy } = await start({ seed })
      proxy.choose(() => (proxy.random() < 0.5 ? { kind: 'refuse' } : undefined))
      const results: boolean[] = []
      for (let i = 0; i < 12; i++)
        results.push(
          await call(proxy.url, '/').then(
            () => true,
            () => false,
          ),
        )
      return results
    }
    const first = await choices(7)
    expect(await choices(7)).toEqual(first)
    expect(await choices(8)).not.toEqual(first)
  })

  it('stands before a Redis as well', async () => {
    const proxy = await startProxy({ target: inject('redisUrl') })
    const redis = new Redis(proxy.url, { maxRetriesPerRequest: 0, retryStrategy: () => 1 })
    redis.on('error', () => undefined)
    onTestFinished(() => redis.disconnect())
    expect(await redis.ping()).toBe('PONG')
    proxy.set({ kind: 'reset', at: 'before-headers' })
    await expect(redis.ping()).rejects.toThrow()
    proxy.set(undefined)
    await expect.poll(() => redis.ping().catch(() => undefined)).toBe('PONG')
  })
})

async function start(options: Partial<FaultProxyOptions> = {}) {
  const seen: string[] = []
  const { promise: served, resolve } = Promise.withResolvers<void>()
  const target = await startServer((request, response) => {
    seen.push(request.url ?? '')
    response.writeHead(200, { 'content-length': ANSWER.length })
    response.end(ANSWER, () => resolve())
  })
  return { proxy: await startProxy({ target, ...options }), seen, served }
}

async function startProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(options)
  onTestFinished(() => proxy.stop())
  return proxy
}
