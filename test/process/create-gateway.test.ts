import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { ConfigError, createGateway, type Gateway, type GatewayConfig } from '../../src/index.ts'
import { readText } from '../deploy/repository.ts'
import { newFolder, startUpstream } from '../support/gateway.ts'

function configFor(url: string, key = 'secret'): GatewayConfig {
  return {
    server: { port: 0 },
    admin: { port: 0 },
    log: { level: 'silent' },
    store: { dir: newFolder() },
    upstreams: {
      any: {
        url,
        accounts: { main: { credential: { header: 'authorization', value: key } } },
        limits: { read: [], write: [] },
      },
    },
  }
}

function create(config: GatewayConfig | string): Gateway {
  const gateway = createGateway(config)
  onTestFinished(() => gateway.close())
  return gateway
}

describe('an embedded gateway', () => {
  it('serves what it was configured with, and says where', async () => {
    const upstream = await startUpstream()
    const gateway = create(configFor(upstream.url))
    const { url, adminUrl } = await gateway.listen()
    expect((await fetch(`${url}/any/things`)).status).toBe(200)
    expect((await fetch(`${adminUrl}/readyz`)).status).toBe(200)
    expect(await gateway.listen()).toEqual({ url, adminUrl })
  })

  it('says which Node it needs where an older one got as far as that', () => {
    const { versions } = process
    const pretend = (value: object) => Object.defineProperty(process, 'versions', { value, configurable: true })
    pretend({ ...versions, node: '25.9.0' })
    onTestFinished(() => void pretend(versions))
    const { engines } = JSON.parse(readText('package.json')) as { engines: { node: string } }
    expect(() => createGateway({ upstreams: {} })).toThrow(
      `sluice needs Node ${engines.node.slice(2)} or later, and this is 25.9.0: see https://nodejs.org/download`,
    )
  })

  it('leaves the packages that it loads in part whole for the program around it', async () => {
    const upstream = await startUpstream((_, response) => response.end('hello'))
    const program = join(newFolder(), 'host.mjs')
    const from = (name: string): string => JSON.stringify(import.meta.resolve(name))
    writeFileSync(
      program,
      `import ${from('../../src/index.ts')}
import proxy from ${from('@fastify/http-proxy')}
import fastify from ${from('fastify')}
import { collectDefaultMetrics, Registry } from ${from('@prometheus-io/client')}
const app = fastify()
app.register(proxy, { upstream: '${upstream.url}' })
const { body } = await app.inject('/things')
const register = new Registry(Registry.OPENMETRICS_CONTENT_TYPE)
collectDefaultMetrics({ register, enableExemplars: true })
console.log(body, (await register.metrics()).includes('process_cpu'))
process.exit()
`,
    )
    const { stdout } = await promisify(execFile)(process.execPath, [program])
    expect(stdout).toBe('hello true\n')
  })

  it('reads references in an object as it does in a file', async () => {
    const upstream = await startUpstream()
    const { url } = await create(configFor(upstream.url, 'Bearer ${env:HOME}')).listen()
    await fetch(`${url}/any/things`)
    expect(upstream.seen[0]?.headers.authorization).toBe(`Bearer ${process.env['HOME']}`)
  })

  it('takes the name of a file, and reads it anew on reload', async () => {
    const upstream = await startUpstream()
    const file = join(newFolder(), 'sluice.yaml')
    writeFileSync(file, stringify(configFor(upstream.url, 'before')))
    const gateway = create(file)
    const { url } = await gateway.listen()
    writeFileSync(file, stringify({ ...configFor(upstream.url, 'after'), store: undefined }))
    expect(await gateway.reload()).toMatchObject({ result: 'applied' })
    await fetch(`${url}/any/things`)
    expect(upstream.seen[0]?.headers.authorization).toBe('after')
  })

  it('keeps what is in force where another configuration is wrong, also for the next reload', async () => {
    const upstream = await startUpstream()
    const config = configFor(upstream.url)
    const gateway = create(config)
    const { url } = await gateway.listen()
    const wrong = { upstreams: { any: { url: 5 } } } as unknown as GatewayConfig
    expect(await gateway.reload(wrong)).toMatchObject({ result: 'rejected' })
    expect((await fetch(`${url}/any/things`)).status).toBe(200)
    expect(await gateway.reload()).toMatchObject({ result: 'unchanged' })
  })

  it('answers each of several reloads at once for its own configuration, and keeps the latest that was right', async () => {
    const upstream = await startUpstream()
    const gateway = create(configFor(upstream.url, 'first'))
    const { url, adminUrl } = await gateway.listen()
    const wrong = { upstreams: { any: { url: 5 } } } as unknown as GatewayConfig
    const results = async (...wanted: (GatewayConfig | undefined)[]): Promise<string[]> =>
      (await Promise.all(wanted.map((next) => gateway.reload(next)))).map(({ result }) => result)
    expect(await results(wrong, configFor(upstream.url, 'second'))).toEqual(['rejected', 'applied'])
    const third = configFor(upstream.url, 'third')
    expect(await results(third, wrong, undefined)).toEqual(['applied', 'rejected', 'unchanged'])
    const response = await fetch(`${adminUrl}/v1/reload`, { method: 'POST' })
    expect(await response.json()).toMatchObject({ data: { result: 'unchanged' } })
    await fetch(`${url}/any/things`)
    expect(upstream.seen[0]?.headers.authorization).toBe('third')
  })

  it('says everything that is wrong with an object, by path and without lines of a text that nobody wrote', async () => {
    const wrong = { serer: {}, upstreams: { any: { url: 'https://api.example', queue: { maxWait: 'x' } } } }
    const listening = create(wrong).listen()
    const error = await listening.then(
      () => undefined,
      (error: unknown) => error,
    )
    expect(error).toBeInstanceOf(ConfigError)
    const { message } = error as ConfigError
    expect(message).toContain('config: serer: unknown key "serer"')
    expect(message).toContain('config: upstreams.any.queue.maxWait: must be a duration')
    expect(message).not.toMatch(/config:\d/)
  })

  it('refuses several processes, which would start the program around it again', async () => {
    const config = configFor('http://127.0.0.1:9')
    const several = { ...config, server: { workers: 2 }, store: { kind: 'redis', url: 'redis://127.0.0.1:1' } } as const
    await expect(create(several).listen()).rejects.toThrow(/server\.workers: must be 1 in an embedded gateway/)
  })

  it('leaves nothing behind where a port can not be had, and listens once it can', async () => {
    const taken = createServer()
    const port = await new Promise<number>((resolve) => {
      taken.listen(0, '127.0.0.1', () => resolve((taken.address() as { port: number }).port))
    })
    const gateway = create({ ...configFor('http://127.0.0.1:9'), admin: { port } })
    await expect(gateway.listen()).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await new Promise((resolve) => void taken.close(resolve))
    expect((await gateway.listen()).adminUrl).toContain(String(port))
  })

  it('can be closed before it listens, and twice, and listens no more', async () => {
    const gateway = create(configFor('http://127.0.0.1:9'))
    await gateway.close()
    await gateway.close()
    await expect(gateway.listen()).rejects.toThrow('this gateway was closed')
    await expect(gateway.reload()).rejects.toThrow('does not listen')
  })

  it('is closed at the end of its block, and its port is free again', async () => {
    const upstream = await startUpstream()
    let url: string
    {
      await using gateway = createGateway(configFor(upstream.url))
      ;({ url } = await gateway.listen())
    }
    await expect(fetch(url)).rejects.toThrow('fetch failed')
  })
})
