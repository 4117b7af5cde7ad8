import { expect, it, onTestFinished } from 'vitest'
import { listOf, oneOf, timeOf } from '../../../src/server/admin/list.ts'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { harnessConfig, startGateway } from '../../support/gateway.ts'

it.each([
  ['GET', '/quota?account=nope'],
  ['GET', '/queue?client=x'],
  ['GET', '/breakers?search=x'],
  ['GET', '/requests?include_archived=true'],
  ['GET', '/upstreams?include_archived=true'],
  ['GET', '/clients/bot?fields=name'],
  ['DELETE', '/clients/bot?dry_run=true'],
  ['POST', '/reload?dry_run=true'],
])('%s %s is refused for the parameter that it does not take, and does nothing', async (method, path) => {
  const gateway = await startGateway(
    harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, token: ADMIN_TOKEN } }),
  )
  await ask(gateway, 'POST', '/clients', { name: 'bot' })
  const answer = await ask(gateway, method, path)
  const [, name = ''] = /\?(.*)=/.exec(path)!
  expect([answer.status, answer.json().detail]).toEqual([
    400,
    expect.stringMatching(
      new RegExp(`^unknown query parameter "${name}"; (this request takes none|known are [a-z, ]+)$`),
    ),
  ])
  expect((await ask(gateway, 'GET', '/audit')).json().data).toMatchObject([{ action: 'client.create' }])
  expect((await ask(gateway, 'GET', '/nothing?x=y')).status).toBe(404)
})

it.each([
  ['say "hi"', true],
  ['C:\\TEMP', true],
  ['429', true],
  ['deep', true],
  ['name', false],
  ['tags', false],
  ['","', false],
  ['null', false],
])('a search for %s looks at texts and numbers alone, as they are: %j', async (text, isFound) => {
  const items = [{ name: 'C:\\temp', title: 'Say "hi"', status: 429, tags: ['a', { of: 'Deep' }], none: null }]
  expect((await listOf(items, { search: text, limit: 10, offset: 0 })).data).toEqual(isFound ? items : [])
})

it.each([
  ['2027-01-31', '2027-01-31T00:00:00.000Z'],
  ['2027-01-31T18:00', '2027-01-31T18:00:00.000Z'],
  ['2027-01-31 18:00:30.5', '2027-01-31T18:00:30.500Z'],
  ['2027-01-31T18:00Z', '2027-01-31T18:00:00.000Z'],
  ['2027-01-31T18:00+02:00', '2027-01-31T16:00:00.000Z'],
  ['2027-01-31T18:00 02:00', '2027-01-31T16:00:00.000Z'],
  ['2027-01-31 18:00 0200', '2027-01-31T16:00:00.000Z'],
  ['2027-01-31T18:00:00+0200', '2027-01-31T16:00:00.000Z'],
])('reads %s in UTC, whatever the time zone of the machine', (text, time) => {
  const { TZ } = process.env
  onTestFinished(() => {
    if (TZ === undefined) delete process.env['TZ']
    else process.env['TZ'] = TZ
  })
  process.env['TZ'] = 'America/New_York'
  expect(new Date(2027, 0, 31).getTimezoneOffset()).toBe(300)
  expect(timeOf('since', text)).toBe(time)
})

it('other work goes on while thousands are looked through', async () => {
  function* slow() {
    for (let i = 0; i < 50; i++) {
      for (const end = performance.now() + 1; performance.now() < end;);
      yield { id: `id${i}`, name: `name${i}` }
    }
  }
  let turns = 0
  let next = setImmediate(function turn() {
    turns++
    next = setImmediate(turn)
  })
  try {
    expect((await listOf(slow(), { search: undefined, limit: 1, offset: 1 })).data).toEqual([
      { id: 'id1', name: 'name1' },
    ])
    expect(turns).toBeGreaterThan(10)
    turns = 0
    await expect(oneOf(slow(), 'thing', 'name49')).resolves.toEqual({ id: 'id49', name: 'name49' })
    expect(turns).toBeGreaterThan(10)
    await expect(oneOf(slow(), 'thing', 'other')).rejects.toThrow('other')
  } finally {
    clearImmediate(next)
  }
})
