import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasProgram } from '../support/packages.ts'
import { deadPort, startRedisServer } from '../support/find-redis.ts'
import { demoKey, healthCheckOf, service } from './compose.ts'
import { imageHealthCheck } from './dockerfile.ts'
import { atPort, run } from './process.ts'
import { type Stack, startStack } from './stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack()
})
afterAll(() => stack.stop())

describe('what `docker compose up` starts, without Docker', () => {
  it('lets the demo key through to the sandbox', async () => {
    const response = await fetch(`${stack.url}/harness/ng/api/projects?accountIdentifier=demo1234`, {
      headers: { 'X-Sluice-Key': demoKey() },
    })
    expect(response.status).toBe(200)
    expect(response.headers.get('ratelimit-policy')).toBe('"read";q=1000;w=60')
  })

  it('lets no other key through', async () => {
    const response = await fetch(`${stack.url}/harness/ng/api/projects`, {
      headers: { 'X-Sluice-Key': `${demoKey()}x` },
    })
    expect(response.status).toBe(401)
  })

  it('is healthy by the image’s health check', () => {
    expect(run(atPort(imageHealthCheck(), 9090, stack.adminPort))).toEqual({ code: 0, output: '' })
  })

  it('is not healthy by the image’s health check where nothing listens', async () => {
    expect(run(atPort(imageHealthCheck(), 9090, await deadPort()))).toEqual({ code: 1, output: '' })
  })

  it('has a sandbox that is healthy by its health check', () => {
    expect(run(atPort(healthCheckOf('sandbox'), 8091, stack.sandboxControlPort))).toEqual({ code: 0, output: '' })
  })

  it('has a sandbox that is not healthy where nothing listens', async () => {
    expect(run(atPort(healthCheckOf('sandbox'), 8091, await deadPort()))).toEqual({ code: 1, output: '' })
  })
})

describe.skipIf(!hasProgram('redis-server'))('the Redis of the Compose file', () => {
  it('starts with these options and is healthy by its health check, until it is gone', async () => {
    const [program, ...options] = service('redis').command ?? []
    const [client, ...rest] = healthCheckOf('redis')
    expect(program).toBe('redis-server')
    const redis = await startRedisServer(options)
    const healthCheck = [client!, '-p', String(redis.port), ...rest]
    expect(run(healthCheck)).toEqual({ code: 0, output: 'PONG\n' })
    await redis.stop()
    expect(run(healthCheck).code).not.toBe(0)
  })
})

describe('the image’s command', () => {
  it('finishes the call in flight after SIGTERM, and ends with code 0', async () => {
    const own = await startStack()
    try {
      await fetch(`http://127.0.0.1:${own.sandboxControlPort}/faults`, {
        method: 'PUT',
        body: JSON.stringify({ latencyMs: 1_000 }),
      })
      const call = fetch(`${own.url}/harness/ng/api/projects`, { headers: { 'X-Sluice-Key': demoKey() } })
      // A call that ends before it was seen would never be.
      await Promise.race([seenBySandbox(own), call.then(({ status }) => expect(status).toBe('in flight'))])
      expect(await own.gateway.stop('SIGTERM')).toBe(0)
      expect((await call).status).toBe(200)
      expect(own.gateway.output).toMatch(/drain/)
    } finally {
      await own.stop()
    }
  })
})

async function seenBySandbox({ sandboxControlPort }: Stack): Promise<void> {
  for (;;) {
    const response = await fetch(`http://127.0.0.1:${sandboxControlPort}/counts`)
    const { totals } = (await response.json()) as { totals: { requests: number } }
    if (totals.requests > 0) return
    await pause(10)
  }
}
