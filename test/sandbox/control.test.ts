import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { ask } from './ask.ts'

let sandbox: Sandbox

beforeAll(async () => {
  sandbox = await startSandbox()
})

beforeEach(() => {
  sandbox.reset()
  sandbox.clearFaults()
})

afterAll(() => sandbox.stop())

test('the control port is healthy', async () => {
  expect(await control('GET', '/healthz')).toEqual([200, { status: 'ok' }])
})

test('shows what was seen and counted, as the methods do', async () => {
  for (const path of ['/a', '/b//%2F?x=+', '/c']) await ask(sandbox.url, { path })
  expect(await control('GET', '/seen')).toEqual([200, sandbox.seen()])
  const [, latest] = await control('GET', '/seen?limit=2')
  expect(latest).toMatchObject([{ url: '/b//%2F?x=+' }, { url: '/c' }])
  expect(await control('GET', '/counts')).toEqual([200, sandbox.counts()])
})

test('forgets at POST /reset', async () => {
  await ask(sandbox.url)
  await control('POST', '/reset')
  expect(await control('GET', '/seen')).toEqual([200, []])
  expect(await control('GET', '/counts')).toMatchObject([200, { totals: { requests: 0 }, accounts: {} }])
})

test('sets and clears faults', async () => {
  await control('PUT', '/faults', '{"status":503}')
  expect((await ask(sandbox.url)).status).toBe(503)
  await control('DELETE', '/faults')
  expect((await ask(sandbox.url)).status).toBe(200)
})

test('changes limits and the dialect of Retry-After', async () => {
  await control('PUT', '/limits', '{"write":{"requests":1,"windowMs":30000}}')
  await control('PUT', '/retry-after', '"seconds"')
  expect((await ask(sandbox.url, { method: 'PUT' })).status).toBe(200)
  expect(await ask(sandbox.url, { method: 'PUT' })).toMatchObject({ status: 429, headers: { 'retry-after': '30' } })
})

test.each([
  ['PUT', '/faults', '{"status":200}', 400, 'status: must be'],
  ['PUT', '/faults', '{', 400, 'the body must be JSON'],
  ['PUT', '/limits', '{"reads":{}}', 400, 'reads: unknown key; known here: read, write, template, webhook'],
  ['PUT', '/limits', '{"read":{"requests":1}}', 400, 'read.windowMs: must be'],
  ['PUT', '/retry-after', '"never"', 400, 'retryAfter: must be one of seconds, date, none'],
  ['GET', '/seen?limit=all', '', 400, 'limit: must be'],
  ['GET', '/faults', '', 404, 'there is only GET /healthz, '],
])('answers %s %s %s with %i and what is wrong', async (method, path, body, status, message) => {
  expect(await control(method, path, body)).toEqual([status, { error: expect.stringContaining(message) }])
})

async function control(method: string, path: string, body = ''): Promise<[number, unknown]> {
  const answer = await ask(sandbox.controlUrl, { method, path, body })
  return [answer.status, answer.json]
}
