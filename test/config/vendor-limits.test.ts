import { describe, expect, it } from 'vitest'
import { Admissions } from '../support/admissions.ts'

const MINUTE = 60_600 // and the bucket in which a charge still counts
const HOUR = 3_640_000

describe('the GitHub preset', () => {
  const github = () => new Admissions({ preset: 'github' })

  it('allows 900 points a minute: 900 GETs, or 180 changes', async () => {
    expect(await github().countAdmitted(901, 'GET', '/user')).toBe(900)
    expect(await github().countAdmitted(181, 'PATCH', '/repos/o/r')).toBe(180)
    const mixed = github()
    expect(await mixed.countAdmitted(100, 'DELETE', '/repos/o/r/labels/x')).toBe(100)
    expect(await mixed.countAdmitted(401, 'HEAD', '/user')).toBe(400)
  })

  it('lets the 81st creation of a minute wait, and reads and other changes pass meanwhile', async () => {
    const it = github()
    expect(await it.countAdmitted(80, 'POST', '/repos/o/r/issues')).toBe(80)
    const late = it.send('POST', '/repos/o/r/issues')
    expect(await it.countAdmitted(1, 'GET', '/user')).toBe(1)
    expect(await it.countAdmitted(1, 'PATCH', '/repos/o/r/issues/1')).toBe(1)
    expect(late.permit).toBeUndefined()
    await it.clock.advance(MINUTE)
    expect(late.permit).toBeDefined()
  })

  it('allows 500 creations and 5,000 requests an hour', async () => {
    const it = github()
    let created = 0
    for (let minute = 0; minute < 7; minute++) {
      created += await it.countAdmitted(minute < 6 ? 80 : 21, 'POST', '/repos/o/r/issues/1/comments')
      await it.clock.advance(MINUTE)
    }
    expect(created).toBe(500)
    let read = 0
    for (let minute = 0; minute < 8; minute++) {
      read += await it.countAdmitted(minute < 7 ? 600 : 301, 'GET', '/user')
      await it.clock.advance(MINUTE)
    }
    expect(created + read).toBe(5_000)
  })

  it('lets the 101st concurrent call wait until one is over, of GraphQL too', async () => {
    const it = github()
    const calls = Array.from({ length: 100 }, () => it.send('GET', '/user', { isOpen: true }))
    const late = it.send('POST', '/graphql')
    await it.clock.advance(10_000)
    expect(late.permit).toBeUndefined()
    calls[0]!.permit!.commit()
    calls[0]!.permit!.leave()
    await it.clock.advance(1_000)
    expect(late.permit).toBeDefined()
  })

  it('allows 2,000 points of GraphQL a minute, and few searches', async () => {
    expect(await github().countAdmitted(401, 'POST', '/graphql')).toBe(400)
    expect(await github().countAdmitted(31, 'GET', '/search/issues?q=x')).toBe(30)
    expect(await github().countAdmitted(11, 'GET', '/search/code?q=x')).toBe(10)
  })

  it.each([
    ['GET', '/repos/o/r', 'read', 'safe'],
    ['POST', '/markdown', 'read', 'safe'],
    ['POST', '/repos/o/r/pulls', 'create', 'unsafe'],
    ['PUT', '/repos/o/r/contents/a/b', 'create', 'safe'],
    ['POST', '/repos/o/r/actions/workflows/7/dispatches', 'write', 'unsafe'],
    ['POST', '/app/installations/1/access_tokens', 'write', 'unsafe'],
    ['PATCH', '/repos/o/r', 'write', 'unsafe'],
  ])('%s %s is of class %s and %s to repeat', (method, path, className, retry) => {
    expect(github().send(method, path).target?.route).toMatchObject({ class: className, retry })
  })

  it('counts one token as one, whichever account uses it', async () => {
    const credential = { value: 'Bearer x' }
    const it = new Admissions({ preset: 'github', accounts: { a: { credential }, b: { credential } } })
    expect(await it.countAdmitted(20, 'GET', '/search/issues', { account: 'a' })).toBe(20)
    expect(await it.countAdmitted(20, 'GET', '/search/issues', { account: 'b' })).toBe(10)
  })
})

describe('the Slack preset', () => {
  const slack = () => new Admissions({ preset: 'slack' })

  it.each([
    ['/apps.connections.open', 1],
    ['/conversations.list', 20],
    ['/conversations.history', 50],
    ['/users.info', 100],
    ['/chat.postMessage', 1],
  ])('%s allows %d at once', async (path, allowed) => {
    expect(await slack().countAdmitted(allowed + 1, 'POST', path)).toBe(allowed)
  })

  it('allows one message a second', async () => {
    const it = slack()
    const calls = Array.from({ length: 3 }, () => it.send('POST', '/chat.postMessage'))
    await it.clock.advance(1_020)
    expect(calls.filter(({ permit }) => permit !== undefined)).toHaveLength(2)
  })

  it('does not let a method at its tier hold back another, but counts GET and POST of one together', async () => {
    const it = slack()
    expect(await it.countAdmitted(25, 'POST', '/conversations.list')).toBe(20)
    expect(await it.countAdmitted(25, 'POST', '/users.list')).toBe(20)
    expect(await it.countAdmitted(1, 'GET', '/conversations.list')).toBe(0)
  })

  it('counts methods that it does not know together, as tier 2', async () => {
    const it = slack()
    expect(await it.countAdmitted(15, 'POST', '/brand.new')).toBe(15)
    expect(await it.countAdmitted(15, 'POST', '/brand.newer')).toBe(5)
  })

  it.each([
    ['POST', '/conversations.list', 'safe'],
    ['POST', '/users.lookupByEmail', 'safe'],
    ['POST', '/search.messages', 'safe'],
    ['POST', '/reactions.get', 'safe'],
    ['GET', '/chat.postMessage', 'unsafe'],
    ['GET', '/files.getUploadURLExternal', 'unsafe'],
    ['POST', '/reminders.complete', 'unsafe'],
    ['POST', '/brand.list', 'unsafe'],
    ['GET', '/brand.new', 'unsafe'],
  ])('%s %s is %s to repeat', (method, path, retry) => {
    expect(slack().send(method, path).target?.route.retry).toBe(retry)
  })
})

describe('the PagerDuty preset', () => {
  it('allows 960 requests a minute of one key, reads and writes together', async () => {
    const it = new Admissions({ preset: 'pagerduty' })
    expect(await it.countAdmitted(900, 'GET', '/incidents')).toBe(900)
    expect(await it.countAdmitted(61, 'PUT', '/incidents')).toBe(60)
    expect(it.target('POST', '/analytics/metrics/incidents/all')).toMatchObject({ route: { retry: 'safe' } })
    expect(it.target('POST', '/analytics/brand/new')).toMatchObject({ route: { class: 'read', retry: 'unsafe' } })
  })
})

describe('the Jira preset', () => {
  const jira = (upstream: object = {}) =>
    new Admissions({ preset: 'jira', url: 'https://x.atlassian.net', ...upstream })
  const issue = '/rest/api/3/issue/ABC-1'

  it('allows 65,000 points from full hour to full hour', async () => {
    const it = jira({ limits: { all: [{ requests: 65_000, window: '1h', kind: 'calendar', cost: 'route' }] } })
    await it.clock.advance(HOUR - 40_000 - 600_000)
    // An issue costs 1 + 1.
    expect(await it.countAdmitted(32_501, 'GET', issue)).toBe(32_500)
    await it.clock.advance(600_000)
    expect(await it.countAdmitted(1, 'GET', issue)).toBe(0)
    await it.clock.advance(5_000)
    expect(await it.countAdmitted(1, 'GET', issue)).toBe(1)
  })

  it.each([
    ['GET', issue, 2],
    ['GET', '/rest/api/3/myself', 3],
    ['GET', '/rest/api/3/group/member?groupname=g', 101],
    ['POST', '/rest/api/3/search/jql', 51],
    ['POST', '/rest/api/3/issue', 1],
    ['PUT', issue, 1],
  ])('%s %s costs %d points', (method, path, points) => {
    const { limits, units } = jira().send(method, path).target!.admissionPolicy.chargeSet
    expect(units[limits.findIndex(({ kind }) => kind === 'calendar')]).toBe(points)
  })

  it('allows 100 GETs or 50 PUTs a second of one endpoint, and does not hold back others', async () => {
    const it = jira()
    expect(await it.countAdmitted(101, 'GET', issue)).toBe(100)
    expect(await it.countAdmitted(101, 'GET', '/rest/api/3/issue/ABC-2')).toBe(0)
    expect(await it.countAdmitted(51, 'PUT', '/rest/api/3/project/P')).toBe(50)
    expect(await it.countAdmitted(1, 'GET', '/rest/api/3/project/P')).toBe(1)
    expect(await it.countAdmitted(6, 'GET', '/rest/servicedeskapi/servicedesk/1/customer')).toBe(5)
  })

  it('allows 20 writes in 2 s and 100 in 30 s of one issue, and of another meanwhile', async () => {
    const it = jira()
    const calls = Array.from({ length: 130 }, (_, i) =>
      it.send(i % 2 ? 'PUT' : 'POST', i % 2 ? issue : `${issue}/comment`),
    )
    const admitted = () => calls.filter(({ permit }) => permit !== undefined).length
    await it.clock.advance(0)
    expect(admitted()).toBe(20)
    expect(await it.countAdmitted(20, 'PUT', '/rest/api/3/issue/ABC-3')).toBe(20)
    expect(await it.countAdmitted(1, 'PUT', '/rest/api/3/issue/abc%2D1')).toBe(0)
    await it.clock.advance(2_040)
    expect(admitted()).toBe(40)
    await it.clock.advance(20_000)
    expect(admitted()).toBe(100)
    await it.clock.advance(9_000)
    expect(admitted()).toBe(120)
  })

  it('leaves the points out for API tokens', () => {
    const kinds = (it: Admissions) =>
      it.send('GET', issue).target!.admissionPolicy.chargeSet.limits.map(({ kind }) => kind)
    expect(kinds(jira())).toEqual(['calendar', 'rolling'])
    expect(kinds(jira({ limitSet: 'api-token' }))).toEqual(['rolling'])
  })
})

describe('the Cloudflare preset', () => {
  it('allows 1,200 requests in five minutes, of which 200 in one second', async () => {
    const it = new Admissions({ preset: 'cloudflare' })
    let admitted = 0
    for (let second = 0; second < 6; second++) {
      expect(await it.countAdmitted(200, 'GET', '/zones')).toBe(200)
      admitted += 200
      await it.clock.advance(1_020)
    }
    expect(admitted).toBe(1_200)
    expect(await it.countAdmitted(1, 'POST', '/zones')).toBe(0)
    await it.clock.advance(303_100)
    expect(await it.countAdmitted(1, 'GET', '/zones')).toBe(1)
  })

  it('allows 200 a second over all accounts, and 300 of GraphQL in five minutes', async () => {
    const accounts = { a: { credential: { value: 'x' } }, b: { credential: { value: 'y' } } }
    const it = new Admissions({ preset: 'cloudflare', accounts })
    expect(await it.countAdmitted(150, 'GET', '/zones', { account: 'a' })).toBe(150)
    expect(await it.countAdmitted(51, 'GET', '/zones', { account: 'b' })).toBe(50)
    const graphs = new Admissions({ preset: 'cloudflare', limits: { all: [] } })
    expect(await graphs.countAdmitted(301, 'POST', '/graphql')).toBe(300)
  })
})

describe('the published limits of Harness', () => {
  const accounts = {
    a: { id: 'A', credential: { value: 'x' } },
    b: { id: 'B', credential: { value: 'y' } },
  }
  const harness = (upstream: object = {}) =>
    new Admissions({ preset: 'harness', limitSet: 'published', accounts, ...upstream })

  it('allow 400 calls a minute of one key, of all classes together', async () => {
    const it = harness()
    expect(await it.countAdmitted(300, 'GET', '/ng/api/projects', { account: 'a' })).toBe(300)
    expect(await it.countAdmitted(101, 'POST', '/ng/api/projects', { account: 'a' })).toBe(100)
    expect(await it.countAdmitted(1, 'GET', '/ng/api/projects', { account: 'b' })).toBe(1)
  })

  it('do not charge webhooks, which carry no key, to the key; allow 5,000 calls in 10 s from one address', async () => {
    const it = harness()
    expect(await it.countAdmitted(4_900, 'POST', '/ng/api/webhook', { account: 'a' })).toBe(4_900)
    expect(await it.countAdmitted(101, 'POST', '/ng/api/webhook', { account: 'b' })).toBe(100)
  })

  it('allow one body over 500,000 characters in 10 s, and refuse those of unknown length', async () => {
    const it = harness()
    const large = { account: 'a', headers: { 'content-length': '500001' } }
    const small = { account: 'a', headers: { 'content-length': '500000' } }
    expect(await it.countAdmitted(2, 'POST', '/ng/api/projects', large)).toBe(1)
    const chunked = it.send('POST', '/ng/api/projects', { account: 'a', headers: { 'transfer-encoding': 'chunked' } })
    expect(chunked.refusal).toMatchObject({
      kind: 'invalid_request',
      message: expect.stringContaining('Content-Length'),
    })
    expect(await harness().countAdmitted(9, 'POST', '/ng/api/projects', small)).toBe(9)
  })
})

describe('what the presets of other vendors say of a call', () => {
  const site = { url: 'https://site.example' }
  it.each([
    ['shopify', 'POST', '/admin/api/2026-10/graphql.json', 'graphql', 'unsafe'],
    ['shopify', 'GET', '/admin/api/2026-10/orders.json', 'read', 'safe'],
    ['shopify', 'POST', '/api/2026-10/graphql.json', 'storefront', 'unsafe'],
    ['hubspot', 'POST', '/crm/v3/objects/deals/search', 'search', 'safe'],
    ['hubspot', 'POST', '/crm/v4/objects/p_things/search', 'search', 'safe'],
    ['hubspot', 'POST', '/crm/v3/objects/deals/batch/read', 'read', 'safe'],
    ['hubspot', 'POST', '/crm/v3/objects/deals/batch/create', 'write', 'unsafe'],
    ['datadog', 'POST', '/api/v1/events', 'event', 'unsafe'],
    ['datadog', 'POST', '/api/v2/series', 'intake', 'unsafe'],
    ['datadog', 'POST', '/api/v2/logs/events/search', 'read', 'safe'],
    ['datadog', 'GET', '/api/v1/monitor', 'read', 'safe'],
    ['gitlab', 'GET', '/projects/group%2Fproject', 'one', 'safe'],
    ['gitlab', 'POST', '/projects', 'create', 'unsafe'],
    ['gitlab', 'GET', '/projects/7/issues', 'read', 'safe'],
    ['confluence', 'GET', '/wiki/api/v2/pages', 'read', 'safe'],
    ['confluence', 'POST', '/wiki/api/v2/pages', 'write', 'unsafe'],
    ['openai', 'POST', '/v1/chat/completions', 'tokens', 'unsafe'],
    ['openai', 'POST', '/v1/responses', 'tokens', 'unsafe'],
    ['openai', 'POST', '/v1/embeddings', 'tokens', 'safe'],
    ['openai', 'POST', '/v1/moderations', 'tokens', 'safe'],
    ['openai', 'GET', '/v1/models', 'read', 'safe'],
    ['openai', 'GET', '/v1/responses/resp_1', 'read', 'safe'],
    ['openai', 'POST', '/v1/files', 'write', 'unsafe'],
    ['openai', 'POST', '/v1/batches', 'write', 'unsafe'],
    ['openai', 'POST', '/v1/images/generations', 'write', 'unsafe'],
    ['anthropic', 'POST', '/v1/messages', 'messages', 'unsafe'],
    ['anthropic', 'POST', '/v1/messages/count_tokens', 'read', 'safe'],
    ['anthropic', 'POST', '/v1/messages/batches', 'batches', 'unsafe'],
    ['anthropic', 'GET', '/v1/messages/batches/b/results', 'batches', 'safe'],
    ['anthropic', 'POST', '/v1/files', 'write', 'unsafe'],
    ['anthropic', 'GET', '/v1/models', 'read', 'safe'],
    ['azure-openai', 'POST', '/openai/deployments/gpt/chat/completions', 'deployment', 'unsafe'],
    ['azure-openai', 'POST', '/openai/deployments/gpt/embeddings', 'deployment', 'safe'],
    ['azure-openai', 'POST', '/openai/v1/chat/completions', 'tokens', 'unsafe'],
    ['azure-openai', 'POST', '/openai/files', 'write', 'unsafe'],
  ])('%s: %s %s is of class %s and %s to repeat', (preset, method, path, className, retry) => {
    const it = new Admissions({ preset, ...site })
    expect(it.send(method, path).target?.route).toMatchObject({ class: className, retry })
  })

  it.each([
    ['shopify', 'plus', 'GET', '/admin/api/2026-10/orders.json', 400],
    ['hubspot', 'professional', 'GET', '/crm/v3/objects/deals', 190],
    ['gitlab', 'free', 'GET', '/projects/7/issues', 100],
    ['gitlab', 'current', 'GET', '/users/7/projects', 300],
    ['confluence', 'api-token', 'GET', '/wiki/rest/api/group', 500],
  ])('%s with limitSet: %s lets %s %s pass %d times at once', async (preset, limitSet, method, path, allowed) => {
    const it = new Admissions({ preset, limitSet, ...site })
    expect(await it.countAdmitted(Math.min(allowed + 1, 500), method, path)).toBe(allowed)
  })

  it('a point of Confluence is a point, whoever reads', () => {
    const it = new Admissions({ preset: 'confluence', ...site })
    const points = (method: string, path: string) => it.send(method, path).target!.admissionPolicy.chargeSet.units[0]
    expect(points('GET', '/wiki/api/v2/pages/7')).toBe(2)
    expect(points('GET', '/wiki/rest/api/user/current')).toBe(3)
    expect(points('GET', '/wiki/api/v2/pages/7/children')).toBe(26)
    expect(points('PUT', '/wiki/api/v2/pages/7')).toBe(1)
  })
})
