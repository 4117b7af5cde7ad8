import { expect, it } from 'vitest'
import { newFolder, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { startProcess } from '../support/process.ts'

it('a write through one worker ends what all of them keep in memory', async () => {
  let item = 'old'
  const upstream = await startUpstream(({ method, body }, response) => {
    if (method === 'PUT') item = body
    response.end(item)
  })
  const gateway = await startProcess({
    server: { port: 0, workers: 2 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      api: {
        url: upstream.url,
        accounts: { main: {} },
        limits: { read: [], write: [] },
        routes: [{ method: 'GET', path: '/items/*', class: 'read', cache: { freshFor: '10m' } }],
      },
    },
  })
  const readings = () => upstream.seen.filter(({ method }) => method === 'GET').length
  const read = async () => (await call(gateway.url, '/api/items/1')).body
  // Each worker asks at least once. One of them may have had no turn while the first reads came.
  const readUntil = (count: number, wanted: string) =>
    expect
      .poll(async () => {
        const answers = await Promise.all(Array.from({ length: 20 }, read))
        return readings() >= count && answers.every((answer) => answer === wanted)
      })
      .toBe(true)
  await readUntil(2, 'old')
  await call(gateway.url, '/api/items/1', { method: 'PUT', body: 'new' })
  await readUntil(4, 'new')
})
