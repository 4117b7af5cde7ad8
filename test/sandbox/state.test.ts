import { afterEach, describe, expect, test } from 'vitest'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { MOST_IN_COLLECTION, Store } from '../../src/sandbox/store.ts'
import { type EpochMs, systemClock } from '../../src/time/clock.ts'
import { type Answered, ask, TOKEN } from './ask.ts'

const running: Sandbox[] = []
let wall = Date.UTC(2026, 5, 1)

async function start(): Promise<Sandbox> {
  const sandbox = await startSandbox({ clock: { ...systemClock, wall: () => wall as EpochMs } })
  running.push(sandbox)
  return sandbox
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((sandbox) => sandbox.stop()))
})

/** What tests look at in an envelope's `data`. */
interface Data {
  readonly totalItems: number
  readonly content: readonly { readonly service: { readonly identifier: string } }[]
  readonly empty: boolean
  readonly planExecution: { readonly uuid: string }
  readonly pipelineExecutionSummary: { readonly status: string }
}
const dataOf = ({ json }: Answered): Data => (json as { data: Data }).data
const SCOPE = '?accountIdentifier=acct1&orgIdentifier=o&projectIdentifier=p'
const WORKSPACES = '/iacm/api/orgs/o/projects/p/workspaces'

/** One kind: where it is made, where one of them is, where they are listed, and the body that makes it. */
const KINDS: readonly (readonly [kind: string, create: string, one: string, list: [string, string], body: string])[] = [
  [
    'pipeline',
    '/pipeline/api/pipelines/v2',
    '/pipeline/api/pipelines/mine',
    ['POST', '/pipeline/api/pipelines/list'],
    'pipeline:\n  identifier: mine\n  name: Mine\n',
  ],
  [
    'template',
    '/template/api/templates',
    '/template/api/templates/mine',
    ['POST', '/template/api/templates/list-metadata'],
    'template:\n  identifier: mine\n  name: Mine\n  versionLabel: "1"\n',
  ],
  ...['service', 'environment'].map((kind): (typeof KINDS)[number] => [
    kind,
    `/ng/api/${kind}sV2`,
    `/ng/api/${kind}sV2/mine`,
    ['GET', `/ng/api/${kind}sV2`],
    '{"identifier":"mine","name":"Mine","orgIdentifier":"o","projectIdentifier":"p"}',
  ]),
  [
    'connector',
    '/ng/api/connectors',
    '/ng/api/connectors/mine',
    ['POST', '/ng/api/connectors/listV2'],
    '{"connector":{"identifier":"mine","name":"Mine","orgIdentifier":"o","projectIdentifier":"p"}}',
  ],
]

describe.each(KINDS)('a %s', (kind, create, one, [listMethod, listPath], body) => {
  test('that was created is found, listed, changed and deleted', async () => {
    const { url } = await start()
    const call = (method: string, path: string, sent?: string): Promise<Answered> =>
      ask(url, { method, path: `${path}${SCOPE}`, ...(sent === undefined ? {} : { body: sent }) })
    expect(await call('GET', one)).toMatchObject({ status: 404, json: { code: 'RESOURCE_NOT_FOUND_EXCEPTION' } })
    expect((await call('POST', create, body)).status).toBe(200)
    expect((await call('GET', one)).body).toContain('Mine')
    const listed = dataOf(await call(listMethod, listPath))
    expect(listed).toMatchObject({ totalItems: 4, totalPages: 1, pageIndex: 0 })
    expect(JSON.stringify(listed.content)).toContain('"Mine"')

    expect(await call('POST', create, body)).toMatchObject({ status: 400, json: { code: 'DUPLICATE_FIELD' } })
    expect((await call('PUT', one, body.replace('Mine', 'Other'))).status).toBe(200)
    expect((await call('GET', one)).body).toContain('Other')
    expect(dataOf(await call('DELETE', one))).toBe(true)
    for (const method of ['GET', 'DELETE']) expect((await call(method, one)).status).toBe(404)
    expect((await call('PUT', one, body)).status).toBe(404)
    expect(dataOf(await call(listMethod, listPath)).totalItems).toBe(3)
  })

  test('of one project or account is not that of another', async () => {
    const { url } = await start()
    await ask(url, { method: 'POST', path: `${create}${SCOPE}`, body })
    for (const path of [`${one}${SCOPE}2`, one]) expect((await ask(url, { path })).status, path).toBe(404)
    const headers = { 'x-api-key': TOKEN.replace('acct1', 'acct2') }
    expect((await ask(url, { path: `${one}${SCOPE}`, headers })).status).toBe(404)
  })

  test('is refused with what is wrong if its identifier is missing or of another form', async () => {
    const { url } = await start()
    for (const sent of ['{}', body.replace('mine', '7-up'), 'nothing']) {
      const answer = await ask(url, { method: 'POST', path: `${create}${SCOPE}`, body: sent })
      expect(answer, sent).toMatchObject({ status: 400, json: { status: 'ERROR', code: 'INVALID_REQUEST' } })
    }
  })

  test('is told by its seeds in a project where nothing was created', async () => {
    const { url } = await start()
    const listed = dataOf(await ask(url, { method: listMethod, path: `${listPath}${SCOPE}`, body: '' }))
    expect(listed.content).toHaveLength(3)
    expect((await ask(url, { path: one.replace('mine', `${kind}_2`) })).status).toBe(200)
  })
})

test('a workspace has no envelope, 409 for a second one, and 204 when it is deleted', async () => {
  const { url } = await start()
  const body = '{"identifier":"mine","name":"Mine","provisioner":"opentofu"}'
  const create = { method: 'POST', path: WORKSPACES, body }
  expect(await ask(url, create)).toMatchObject({ status: 200, json: { identifier: 'mine', provisioner: 'opentofu' } })
  expect((await ask(url, create)).status).toBe(409)
  const listed = await ask(url, { path: `${WORKSPACES}?limit=2&page=1` })
  expect(listed.json).toEqual([
    expect.objectContaining({ identifier: 'workspace_3' }),
    expect.objectContaining({ identifier: 'mine' }),
  ])
  expect((await ask(url, { path: `${WORKSPACES}/mine` })).json).toMatchObject({ name: 'Mine' })
  expect((await ask(url, { method: 'DELETE', path: `${WORKSPACES}/mine` })).status).toBe(204)
  expect((await ask(url, { path: `${WORKSPACES}/mine` })).status).toBe(404)
})

test('an execution runs for a second, and then it has succeeded', async () => {
  const { url } = await start()
  const ran = await ask(url, { method: 'POST', path: `/pipeline/api/pipeline/execute/pipeline_2${SCOPE}` })
  const { uuid } = dataOf(ran).planExecution
  const path = `/pipeline/api/pipelines/execution/v2/${uuid}${SCOPE}`
  const status = async (): Promise<string> => dataOf(await ask(url, { path })).pipelineExecutionSummary.status
  expect(await status()).toBe('Running')
  wall += 1_000
  expect(await status()).toBe('Success')
  const list = `/pipeline/api/pipelines/execution/summary${SCOPE}&pipelineIdentifier=pipeline_2`
  expect(dataOf(await ask(url, { method: 'POST', path: list })).content).toEqual([
    expect.objectContaining({ planExecutionId: uuid, pipelineIdentifier: 'pipeline_2', status: 'Success' }),
  ])
})

test('a pipeline that is not there can not be executed, and neither can an execution be found', async () => {
  const { url } = await start()
  const execute = { method: 'POST', path: '/pipeline/api/pipeline/execute/nobody' }
  expect((await ask(url, execute)).status).toBe(404)
  expect((await ask(url, { path: '/pipeline/api/pipelines/execution/v2/nobody' })).status).toBe(404)
})

test.each(['size', 'pageSize', 'limit'])('pages are as long as %s says, and end with an empty one', async (size) => {
  const { url } = await start()
  for (const identifier of ['a', 'b']) {
    await ask(url, { method: 'POST', path: `/ng/api/servicesV2${SCOPE}`, body: JSON.stringify({ identifier }) })
  }
  const names: string[] = []
  const empty: boolean[] = []
  for (const page of ['page=0', 'page=1', 'pageIndex=2', 'page=3']) {
    const data = dataOf(await ask(url, { path: `/ng/api/servicesV2${SCOPE}&${page}&${size}=2` }))
    expect(data).toMatchObject({ totalPages: 3, totalItems: 5, pageSize: 2 })
    for (const { service } of data.content) names.push(service.identifier)
    empty.push(data.empty)
  }
  expect(names).toEqual(['service_1', 'service_2', 'service_3', 'a', 'b'])
  expect(empty).toEqual([false, false, false, true])
  for (const wrong of ['0', '-1', 'x', '1001']) {
    const path = `/ng/api/servicesV2${SCOPE}&${size}=${wrong}`
    expect(await ask(url, { path }), wrong).toMatchObject({ status: 400, json: { code: 'INVALID_REQUEST' } })
  }
})

test('an entity that did not change is answered 304 to its ETag, and 200 after a change', async () => {
  const { url } = await start()
  const path = `/ng/api/servicesV2/service_1${SCOPE}`
  const get = (tag: string): Promise<Answered> =>
    ask(url, { path, headers: { 'x-api-key': TOKEN, 'if-none-match': tag } })
  const { etag = '' } = (await ask(url, { path })).headers
  expect(etag).toMatch(/^W\/"[\w-]+"$/)
  for (const tag of [etag, etag.slice(2), `"other", ${etag}`, '*']) {
    expect(await get(tag), tag).toMatchObject({ status: 304, body: '', headers: { etag } })
  }
  expect((await get('"other"')).status).toBe(200)
  await ask(url, { method: 'PUT', path, body: '{"name":"New"}' })
  const changed = await get(etag)
  expect(changed.status).toBe(200)
  expect(changed.headers.etag).not.toBe(etag)
})

test('a reset forgets what was created', async () => {
  const sandbox = await start()
  await ask(sandbox.url, { method: 'POST', path: '/ng/api/servicesV2', body: '{"identifier":"mine"}' })
  sandbox.reset()
  expect((await ask(sandbox.url, { path: '/ng/api/servicesV2/mine' })).status).toBe(404)
})

test('an entity that is too long to be kept is refused, and not half stored', async () => {
  const { url } = await start()
  const body = JSON.stringify({ identifier: 'mine', description: 'x'.repeat(70_000) })
  expect(await ask(url, { method: 'POST', path: '/ng/api/servicesV2', body })).toMatchObject({
    status: 400,
    json: { message: expect.stringContaining('65536 bytes') },
  })
})

describe('the store', () => {
  const stored = (identifier: string, text = '') => ({
    fields: { identifier, name: identifier, text },
    createdAt: 0,
    changedAt: 0,
  })

  test('refuses more services than fit, and forgets the oldest execution instead', () => {
    const store = new Store()
    for (let number = 3; number < MOST_IN_COLLECTION; number++) store.put('s', 'service', stored(`s${number}`))
    expect(store.put('s', 'service', stored('more'))).toBe(false)
    expect(store.put('s', 'service', stored('s3', 'changed'))).toBe(true)
    for (let number = 0; number < MOST_IN_COLLECTION; number++) store.put('e', 'execution', stored(`e${number}`))
    expect(store.list('e', 'execution')).toHaveLength(MOST_IN_COLLECTION)
    expect(store.get('e', 'execution', 'execution_1')).toBeUndefined()
  })

  test('forgets the project that was written to longest ago when its memory is used up', () => {
    const store = new Store()
    const mebibyte = 'x'.repeat(2 ** 19)
    for (const name of ['first', 'second', 'third']) {
      for (let number = 0; number < 30; number++) store.put(name, 'service', stored(`s${number}`, mebibyte))
    }
    expect(['first', 'second', 'third'].map((name) => store.list(name, 'service').length)).toEqual([3, 33, 33])
  })
})
