import { appendFileSync, mkdirSync, readFileSync, renameSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { auditTrail } from '../../../src/audit/audit.ts'
import { FileAudit } from '../../../src/audit/file-audit.ts'
import { systemClock } from '../../../src/time/clock.ts'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { harnessConfig, startGateway, stores } from '../../support/gateway.ts'
import { startProcess } from '../../support/process.ts'
import { seededRandom } from '../../support/seeded-random.ts'
import { countTurns } from '../../support/turns.ts'

const admin = { port: 0, token: ADMIN_TOKEN, tokens: { alice: 'alice-token', bob: 'bob-token' } }
const configWith = (store: object) => harnessConfig('http://127.0.0.1:1', {}, { admin, store, clients: {} })
const as = (name: string) => ({ authorization: `Bearer ${name}-token` })

interface Entry {
  readonly action: string
  readonly actor: string
  readonly name: string
  readonly before: Record<string, unknown> | null
  readonly after: Record<string, unknown> | null
}

async function entriesOf(gateway: { adminUrl: string }, query = ''): Promise<Entry[]> {
  return (await ask(gateway, 'GET', `/audit${query}`)).json().data
}

/** What every test looks at: a client that is made, changed, given a key and deleted, by three people. */
async function makeHistory(gateway: { adminUrl: string }): Promise<{ id: string; secrets: string[] }> {
  const { id, key } = (await ask(gateway, 'POST', '/clients', { name: 'bot', classes: ['read'] }, as('alice'))).json()
  await ask(gateway, 'PATCH', `/clients/${id}`, { classes: ['write'] }, as('bob'))
  const second = (await ask(gateway, 'POST', `/clients/${id}/keys`, { label: 'CI' }, as('bob'))).json()
  await ask(gateway, 'POST', '/clients', { name: 'Wrong Name' }, as('bob'))
  await ask(gateway, 'DELETE', `/clients/${id}`)
  return { id, secrets: [key, second.key, ADMIN_TOKEN, 'alice-token', 'bob-token'] }
}

describe.each(Object.entries(stores))('the audit trail, with %s', (_, store) => {
  it('says who changed what, when, from what and to what, newest first, without secrets', async () => {
    const gateway = await startGateway(configWith(store()))
    const { id, secrets } = await makeHistory(gateway)
    const entries = await entriesOf(gateway)
    expect(entries.map(({ action, actor }) => `${actor} ${action}`)).toEqual([
      'admin client.delete',
      'bob client.create_key',
      'bob client.update',
      'alice client.create',
    ])
    const [deleted, keyed, updated, created] = entries
    expect(created).toMatchObject({
      id: expect.stringMatching(/^audit_[0-9a-f]{32}$/),
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      address: '127.0.0.1',
      target: id,
      name: 'bot',
      before: null,
      after: { name: 'bot', classes: ['read'] },
    })
    expect(updated).toMatchObject({ before: { classes: ['read'] }, after: { classes: ['write'] } })
    expect(keyed!.before!['keys']).toHaveLength(1)
    expect(keyed!.after!['keys']).toMatchObject([{}, { label: 'CI' }])
    expect(deleted).toMatchObject({ before: { classes: ['write'] }, after: null })
    for (const secret of secrets) expect(JSON.stringify(entries)).not.toContain(secret)
  })

  it('is read by who, what, when and any text, a page at a time', async () => {
    const gateway = await startGateway(configWith(store()))
    const { id } = await makeHistory(gateway)
    const actions = async (query: string) => (await entriesOf(gateway, query)).map(({ action }) => action)
    expect(await actions('?actor=bob')).toEqual(['client.create_key', 'client.update'])
    expect(await actions('?action=client.create')).toEqual(['client.create'])
    expect(await actions('?action=client&limit=2')).toEqual(['client.delete', 'client.create_key'])
    expect(await actions('?limit=2&offset=3')).toEqual(['client.create'])
    expect(await actions(`?target=${id}&actor=admin`)).toEqual(['client.delete'])
    expect(await actions('?target=bot')).toHaveLength(4)
    expect(await actions('?search=ci')).toEqual(['client.delete', 'client.create_key'])
    expect(await actions('?search=label')).toEqual([])
    expect(await actions('?since=2020-01-01')).toHaveLength(4)
    expect(await actions('?until=2020-01-01')).toEqual([])
    expect(await actions('?since=1h')).toHaveLength(4)
    expect(await actions('?until=1h')).toEqual([])
    expect((await ask(gateway, 'GET', '/audit?since=yesterday')).status).toBe(400)
    expect((await ask(gateway, 'GET', '/audit?actor=')).json().detail).toBe('actor must not be empty')
    expect((await ask(gateway, 'GET', '/audit?who=bob')).status).toBe(400)
  })

  it('has reloads that nobody asked the admin API for, with what changed, but none that changed nothing', async () => {
    const config = configWith(store())
    const gateway = await startGateway(config)
    await gateway.reloadWith(config)
    await gateway.reloadWith({ ...config, clients: { bot: { keys: [`sha256:${'0'.repeat(64)}`] } } })
    await gateway.reloadWith({ ...config, upstreams: { harness: { url: 'http://h', accounts: {} } } })
    const entries = await entriesOf(gateway)
    expect(entries.map(({ actor, action, after }) => [actor, action, after?.['result']])).toEqual([
      ['gateway', 'config.reload', 'rejected'],
      ['gateway', 'config.reload', 'applied'],
    ])
    expect(entries[1]!.after).toMatchObject({ changed: ['clients.bot'] })
  })

  it('is there after a restart', async () => {
    const config = configWith(store())
    const first = await startGateway(config)
    await makeHistory(first)
    const before = await entriesOf(first)
    await first.stop()
    const second = await startGateway(config)
    expect(await entriesOf(second)).toEqual(before)
    await ask(second, 'POST', '/clients', { name: 'other' })
    expect((await entriesOf(second)).slice(1)).toEqual(before)
  })
})

describe('the file of the audit trail', () => {
  it('is its owner’s alone, and goes on behind a line that a crash cut off', async () => {
    const { dir } = stores['the embedded store']()
    const first = await startProcess(configWith({ dir }))
    await ask(first, 'POST', '/clients', { name: 'one' })
    first.kill('SIGKILL')
    await first.ended
    const file = join(dir, 'audit.jsonl')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    appendFileSync(file, '{"id":"audit_0","at":"20')
    const second = await startGateway(configWith({ dir }))
    await ask(second, 'POST', '/clients', { name: 'two' })
    expect((await entriesOf(second)).map(({ name }) => name)).toEqual(['two', 'one'])
    expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(4)
  })

  it('is read from its end, whatever the length of its lines, and lets calls go on meanwhile', async () => {
    const { dir } = stores['the embedded store']()
    const random = seededRandom(3)
    const names = Array.from({ length: 2_000 }, (_, i) =>
      `é${i} `.padEnd(i % 400 === 7 ? 150_000 : random() * 900, 'ü'),
    )
    const lines = names.map((name, i) =>
      JSON.stringify({ at: '2027-01-31', actor: i % 2 === 0 ? 'even' : 'odd', name }),
    )
    writeFileSync(join(dir, 'audit.jsonl'), ['', ...lines, '{"half'].join('\n'))
    const trail = auditTrail(new FileAudit(join(dir, 'audit.jsonl')), systemClock, pino({ level: 'silent' }))
    const read = async (filter: object, page: { limit: number; offset: number }): Promise<string[]> =>
      (await trail.read(filter, page)).map(({ name }) => name)
    using turns = countTurns()
    expect(await read({ actor: 'nobody' }, { limit: 1, offset: 0 })).toEqual([])
    expect(turns.count).toBeGreaterThan(20)
    expect(await read({}, { limit: 9_999, offset: 0 })).toEqual(names.toReversed())
    expect(await read({ actor: 'odd' }, { limit: 2, offset: 1 })).toEqual([names[1_997], names[1_995]])
  })

  it('takes back a new client, and a new key, of which it can hold no entry, so that both can be made again', async () => {
    const { dir } = stores['the embedded store']()
    const file = join(dir, 'audit.jsonl')
    mkdirSync(file)
    const first = await startGateway(configWith({ dir }))
    const make = async (gateway: { adminUrl: string }, path: string) =>
      (await ask(gateway, 'POST', path, path === '/clients' ? { name: 'bot' } : {})).status
    expect(await make(first, '/clients')).toBe(503)
    expect((await ask(first, 'GET', '/clients/bot')).status).toBe(404)
    rmdirSync(file)
    expect(await make(first, '/clients')).toBe(201)
    await first.stop()
    renameSync(file, `${file}.kept`)
    mkdirSync(file)
    const second = await startGateway(configWith({ dir }))
    const keysOf = async () => (await ask(second, 'GET', '/clients/bot')).json().keys
    const before = await keysOf()
    expect(await make(second, '/clients/bot/keys')).toBe(503)
    expect(await keysOf()).toEqual(before)
  })

  it('is shipped as log lines, too', async () => {
    const { dir } = stores['the embedded store']()
    const gateway = await startProcess(configWith({ dir }))
    await ask(gateway, 'POST', '/clients', { name: 'one' }, as('alice'))
    const line = JSON.parse(await gateway.line(/"msg":"audit"/)) as { audit: Entry }
    expect(line.audit).toMatchObject({ actor: 'alice', action: 'client.create', name: 'one' })
  })
})
