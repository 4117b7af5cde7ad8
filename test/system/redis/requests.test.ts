import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { harnessConfig, startGateway, startUpstream, stores } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { startProcess } from '../../support/process.ts'
import { describeTopology, startStandalone } from '../../support/redis-topologies.ts'
import { listRequests, storiesOf, storyOf } from '../../support/requests.ts'

const READ = '/harness/ng/api/projects'
const id = (name: string): Record<string, string> => ({ 'x-correlation-id': name })

let prefixes = 0
function shared(instance: string, prefix: string, url: string) {
  const store = { kind: 'redis', url: inject('redisUrl'), prefix, commandTimeout: '2s' }
  return { ...harnessConfig(url), store, log: { instance } }
}

describe('three gateways that share a Redis', () => {
  it('tell of a call whichever of them served it, and name one that was killed', async () => {
    const upstream = await startUpstream()
    const prefix = `requests-${process.pid}-${prefixes++}`
    const [a, b, c] = await Promise.all(
      ['a', 'b', 'c'].map((instance) => startProcess(shared(instance, prefix, upstream.url))),
    )
    for (const [name, gateway] of Object.entries({ a, b, c }))
      await call(gateway!.url, READ, { headers: id(`at-${name}`) })
    for (const gateway of [a, b, c]) {
      for (const instance of ['a', 'b', 'c']) {
        const { data, away } = await storiesOf(gateway!.adminUrl, `at-${instance}`)
        expect(away).toEqual([])
        expect(data).toMatchObject([{ instance, correlationId: `at-${instance}`, status: '200', isRunning: false }])
      }
    }
    const listed = (await listRequests(a!.adminUrl, '?client=anonymous')).data
    expect(listed.map(({ instance }) => instance)).toEqual(['c', 'b', 'a'])

    c!.kill('SIGKILL')
    await c!.ended
    const away = [{ instance: 'c', why: expect.stringMatching(/did not answer within|has said nothing for/) }]
    expect(await listRequests(a!.adminUrl)).toMatchObject({ data: [{ instance: 'b' }, { instance: 'a' }], away })
    const lost = await call(a!.adminUrl, '/v1/requests/at-c')
    expect(lost.status).toBe(404)
    expect((lost.json() as { detail: string }).detail).toContain('no answer from c (')
    expect((await storyOf(b!.adminUrl, 'at-a')).instance).toBe('a')

    b!.kill('SIGTERM')
    await b!.ended
    const after = await listRequests(a!.adminUrl)
    expect(after.data.map(({ instance }) => instance)).toEqual(['a'])
    expect(after.away).toContainEqual({ instance: 'b', why: expect.stringContaining('it has stopped') })
  })

  it('do not hear of those with another prefix', async () => {
    const upstream = await startUpstream()
    const [one, other] = await Promise.all(
      [0, 1].map(() => startGateway(shared('x', `apart-${process.pid}-${prefixes++}`, upstream.url))),
    )
    await call(one!.url, READ, { headers: id('mine') })
    await storyOf(one!.adminUrl, 'mine')
    expect((await call(other!.adminUrl, '/v1/requests/mine')).status).toBe(404)
  })

  it('do not hear of those in another database', async () => {
    const upstream = await startUpstream()
    const prefix = `apart-${process.pid}-${prefixes++}`
    const urlOf = (database: number) => new URL(`/${database}`, inject('redisUrl')).href
    const [one, other] = await Promise.all(
      [0, 1].map((database) => {
        const config = shared('x', prefix, upstream.url)
        return startGateway({ ...config, store: { ...config.store, url: urlOf(database) } })
      }),
    )
    await call(one!.url, READ, { headers: id('mine') })
    await storyOf(one!.adminUrl, 'mine')
    // One that does not answer, so that every answer has the time to come.
    const redis = new Redis(urlOf(1))
    onTestFinished(() => redis.disconnect())
    await redis.zadd(`${prefix}:requests`, Math.floor(Date.now() / 1_000), 'silent y')
    expect(await listRequests(other!.adminUrl)).toMatchObject({ data: [], away: [{ instance: 'y' }] })
  })

  it('ignore what others publish where they talk', async () => {
    const upstream = await startUpstream()
    const store = stores.Redis()
    const { prefix } = store
    const gateway = await startGateway({ ...harnessConfig(upstream.url), store })
    await call(gateway.url, READ, { headers: id('known') })
    const redis = new Redis(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    const [own] = await redis.zrange(`${prefix}:requests`, '0', '0')
    const foreign = [
      'null',
      '[]',
      '7',
      'x',
      '{}',
      '{"from":null,"number":0}',
      '{"by":"x","number":0,"found":[null],"away":7}',
    ]
    for (const text of foreign) {
      expect(await redis.publish(`${prefix}:requests`, text)).toBe(1)
      expect(await redis.publish(`${prefix}:requests:${own!.split(' ')[0]}`, text)).toBe(1)
    }
    expect(await storiesOf(gateway.adminUrl, 'known')).toMatchObject({ data: [{ correlationId: 'known' }], away: [] })
  })

  it('answer many that ask at once, each what it asked', async () => {
    const upstream = await startUpstream()
    const store = stores.Redis()
    const gateways = await Promise.all([0, 1, 2].map(() => startGateway({ ...harnessConfig(upstream.url), store })))
    const ids = Array.from({ length: 30 }, (_, i) => `call-${i}`)
    await Promise.all(ids.map((name, i) => call(gateways[i % 3]!.url, READ, { headers: id(name) })))
    await Promise.all(
      ids.map(async (name, i) => {
        const { data } = await storiesOf(gateways[(i + 1) % 3]!.adminUrl, name)
        expect(data.map(({ correlationId }) => correlationId)).toEqual([name])
      }),
    )
  })
})

describe('the workers of a gateway', () => {
  it('all tell of their calls, and one that stands still is named', async () => {
    const upstream = await startUpstream()
    const config = shared('many', `requests-${process.pid}-${prefixes++}`, upstream.url)
    const gateway = await startProcess({ ...config, server: { port: 0, workers: 2 } })
    const ids = Array.from({ length: 12 }, (_, i) => `call-${i}`)
    await Promise.all(ids.map((name) => call(gateway.url, READ, { headers: id(name) })))
    await expect.poll(async () => (await listRequests(gateway.adminUrl)).data.length).toBe(12)
    for (const name of ids) expect((await storiesOf(gateway.adminUrl, name)).data).toHaveLength(1)
    await expect.poll(() => gateway.stdout.match(/"pid":\d+,"msg":"call"/g)?.length).toBe(12)
    const [, pid] = /"pid":(\d+),"msg":"call"/.exec(gateway.stdout)!
    process.kill(Number(pid), 'SIGSTOP')
    // Its gateway may not outlive the test for long enough to end it.
    onTestFinished(() => {
      try {
        process.kill(Number(pid), 'SIGKILL')
      } catch {
        // It did.
      }
    })
    const { away } = await listRequests(gateway.adminUrl)
    expect(away).toEqual([{ instance: `many worker ${pid}`, why: 'it does not answer' }])
  })
})

describeTopology('a gateway whose Redis is away', () => {
  it('tells what it knows itself, and that nobody else was asked', async () => {
    const upstream = await startUpstream()
    const redis = await startStandalone()
    onTestFinished(() => redis.stop())
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' }
    const gateway = await startGateway({ ...harnessConfig(upstream.url), store })
    await call(gateway.url, READ, { headers: id('before') })
    await storyOf(gateway.adminUrl, 'before')
    await redis.stop()
    const { data, away } = await storiesOf(gateway.adminUrl, 'before')
    expect(data).toMatchObject([{ correlationId: 'before' }])
    expect(away).toMatchObject([{ instance: '*', why: expect.stringContaining('no other instance was asked: Redis') }])
  })
})
