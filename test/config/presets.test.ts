import { describe, expect, it } from 'vitest'
import { everruns } from '../../src/config/presets/everruns.ts'
import { harness } from '../../src/config/presets/harness.ts'
import type { Preset } from '../../src/config/presets/preset.ts'
import { soundsLikeChanging, soundsLikeReading } from '../../src/config/presets/words.ts'
import { normalizePath } from '../../src/routing/path.ts'
import type { Route } from '../../src/routing/route.ts'
import { RouteTable } from '../../src/routing/route-table.ts'
import { harnessRequests } from '../support/harness-requests.ts'

function finderOf(preset: Preset, layers = [preset.routes()]): (method: string, url: string) => Route {
  const table = new RouteTable({ layers, classify: preset.classify })
  return (method, url) => table.find(method, normalizePath(url.split('?')[0] ?? '', preset.aliasPrefix ?? ''))
}

const find = finderOf(harness)
const findByRule = finderOf(harness, [])

describe('the Harness preset', () => {
  it('puts every request of a generated client into its class', () => {
    for (const { method, url, charges } of harnessRequests) {
      expect(find(method, url).charges, `${method} ${url}`).toEqual(charges)
    }
    expect(harnessRequests).toHaveLength(400)
  })

  it('knows its listed operations one by one, with ids of any form', () => {
    const ids = ['x', 'My_Id-1', 'a%2Fb', '01K9.x', 'list']
    let operations = 0
    for (const { methods, path, rule } of harness.routes()) {
      for (const method of methods ?? []) {
        operations++
        const url = path.replaceAll(/\{[^}]*\}/g, () => ids[operations % ids.length]!)
        expect(find(method, url), `${method} ${url}`).toMatchObject({ class: rule.class, charges: rule.charges })
        expect(find(method, `/gateway${url}`).kind).toBe(find(method, url).kind)
      }
    }
    expect(operations).toBe(1805)
  })

  it('gets its listed operations right by the rule alone, but for few, and hardly takes a change for a reading', () => {
    const counts = { right: 0, takenForReading: 0, takenForChanging: 0 }
    for (const { methods, path, rule } of harness.routes()) {
      for (const method of methods ?? []) {
        const ruled = findByRule(method, path.replaceAll(/\{[^}]*\}/g, 'x_1'))
        if (ruled.charges.join() === rule.charges?.join()) counts.right++
        else if (ruled.charges.includes('read')) counts.takenForReading++
        else counts.takenForChanging++
      }
    }
    expect(counts.right / 1805).toBeGreaterThan(0.96)
    expect(counts.takenForReading).toBeLessThanOrEqual(2)
  })

  it.each([
    ['GET', '/ng/api/projects/new-thing/x', 'read'],
    ['POST', '/ng/api/brand-new', 'write'],
    ['POST', '/ng/api/brand-new/listV2', 'read'],
    ['POST', '/ng/api/allowlist', 'write'],
    ['POST', '/ng/api/brand-new/filter-values', 'read'],
    ['POST', '/query-service/grpc/any.Service/doIt', 'read'],
    ['PATCH', '/ng/api/brand-new/list', 'write'],
    ['DELETE', '/template/api/templates/a/b/c', 'template+write'],
    ['GET', '/template/api/brand/new', 'template+read'],
    ['POST', '/template/api/brand/new', 'template+write'],
    ['GET', '/v1/orgs/o/projects/p/templates/t/brand-new', 'template+read'],
    ['GET', '/v1/orgs/o/projects/p/templates-of-mine', 'read'],
    ['GET', '/chaos/manager/api/rest/faulttemplates/x/new', 'read'],
    ['POST', '/template;v=1/api/brand/new', 'template+write'],
    ['POST', '/pipeline/api/webhook/custom/secrettoken/v9', 'webhook'],
    ['POST', '/pipeline/api/webhook;a=b/custom/secrettoken/v9', 'webhook'],
    ['GET', '/pipeline/api/webhook/anything', 'read'],
    ['POST', '/code/api/v1/repos/r/webhooks/w/brand-new', 'write'],
    ['GET', '/har/api/v1/registry/r/+/webhooks/w/executions/e/retrigger', 'write'],
    ['GET', '/pipeline/api/refresh-template/validate-template-inputs', 'read'],
    ['HEAD', '/ng/api/brand-new', 'read'],
    ['OPTIONS', '/ng/api/brand-new', 'read'],
    ['PROPFIND', '/ng/api/brand-new', 'read'],
    ['LOCK', '/ng/api/brand-new', 'write'],
  ])('%s %s is charged to %s', (method, url, charges) => {
    expect(find(method, url).charges.join('+')).toBe(charges)
    expect(find(method, `/gateway${url}`).charges.join('+')).toBe(charges)
  })

  it.each([
    ['GET', '/ng/api/projects/x', 'safe'],
    ['POST', '/ng/api/projects', 'unsafe'],
    ['POST', '/ng/api/connectors/listV2', 'safe'],
    ['POST', '/query-service/grpc/io.harness.platform.query.service.api.v1.QueryServiceGrpc/executeQuery', 'unsafe'],
    ['PUT', '/agents/api/v1/agents/x', 'safe'],
    ['PATCH', '/ng/api/brand-new/x', 'unsafe'],
    ['PUT', '/ng/api/brand-new/x', 'safe'],
    ['DELETE', '/ng/api/brand-new/x', 'safe'],
    ['DELETE', '/ai-evals/api/v1/orgs/o/projects/p/dataset/d', 'unsafe'],
    ['GET', '/pipeline/api/pipelines/ffCache/refresh', 'unsafe'],
  ])('%s %s is %s to repeat', (method, url, retry) => {
    expect(find(method, url).retry).toBe(retry)
  })

  it.each([
    '/dbops/v1/orgs/o/projects/p/dbschema/x/instance/y/logs',
    '/v1/orgs/o/categories',
    '/ng/api/brand-new/filter-values',
    '/ng/api/brand-new/list/my-set',
    '/ng/api/brand-new/preview',
    '/ng/api/brand-new/checks',
    '/ng/api/brand-new/queryTemplates',
    '/query-service/grpc/any.Service/doIt',
    '/ssca-manager/v1/artifacts',
    '/pipeline/api/webhook/custom/list',
    '/ng/api/allow-list',
  ])('does not take a POST to %s, which it does not know, for safe to repeat', (path) => {
    expect(find('POST', path).pattern).toBeUndefined()
    expect(find('POST', path).retry).toBe('unsafe')
  })

  it.each(['list', 'listV2', 'search', 'filter', 'query', 'validate', 'find/', 'lookup', 'count'])(
    'takes a POST that ends with /%s for safe to repeat, for what else could it be',
    (word) => {
      expect(find('POST', `/ng/api/brand-new/${word}`)).toMatchObject({ class: 'read', retry: 'safe' })
      expect(find('PATCH', `/ng/api/brand-new/${word}`).retry).toBe('unsafe')
    },
  )

  it('calls no change safe to repeat but by its method, or where the vendor does', () => {
    const byMethod = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
    const isMarked = new Map<string, boolean>()
    const rows = harnessRequests.map(({ method, url, charges }) => ({ method, url, isRead: charges.includes('read') }))
    for (const { methods, path, rule } of harness.routes()) {
      for (const method of methods ?? []) {
        isMarked.set(`${method} ${path}`, rule.retry === 'safe')
        const url = path.replaceAll(/\{[^}]*\}/g, 'x_1')
        rows.push({ method, url, isRead: rule.charges!.includes('read') })
      }
    }
    const changes = rows.filter(({ method, isRead }) => !isRead && !byMethod.has(method))
    expect(changes.length).toBeGreaterThan(400)
    for (const { method, url } of changes) {
      const { retry, pattern } = find(method, url)
      const isVendors = isMarked.get(`${method} ${pattern}`) === true
      expect(retry === 'unsafe' || isVendors, `${method} ${url}`).toBe(true)
      // The one word that the vendor has for a write, too; where it is listed, the list counts.
      if (url.endsWith('/validate')) continue
      expect(findByRule(method, url).retry, `${method} ${url}, unlisted`).toBe('unsafe')
    }
  })

  it.each([
    ['POST', '/ng/api/webhook', 'none'],
    ['POST', '/pipeline/api/webhook/custom/t/v3', 'none'],
    ['GET', '/ng/api/scim/account/a/Users', 'bearer'],
    ['GET', '/ng/api/projects', 'inject'],
  ])('%s %s gets its credential: %s', (method, url, credential) => {
    expect(find(method, url).credential).toBe(credential)
  })

  it('knows where a path holds the token of a webhook', () => {
    expect(find('POST', '/gateway/pipeline/api/webhook/custom/tok/v3').secretSegments).toEqual([4])
    expect(findByRule('POST', '/pipeline/api/webhook/custom/tok/v3').secretSegments).toEqual([4])
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE']) {
      expect(find(method, '/pipeline/api/webhook/custom/tok/v3').secretSegments, method).toEqual([4])
    }
    expect(find('POST', '/pipeline/api/webhook/trigger').secretSegments).toEqual([])
    expect(find('GET', '/pipeline/api/webhook/sourceRepos').secretSegments).toEqual([])
  })

  it.each([
    ['/ng/api/accounts/ACC/x', ['ACC']],
    ['/lw/api/accounts/ACC/autostopping', ['ACC']],
    ['/lw/co/api/accounts/ACC/v1/detail', ['ACC']],
    ['/cv/api/account/ACC/org/o', ['ACC']],
    ['/ng/api/scim/account/ACC/Users', ['ACC']],
    ['/pkg/ACC/registry/npm', ['ACC']],
    ['/code/api/v1/repos/ACC/org/project/repo/+/commits', ['ACC']],
    ['/code/api/v1/repos/ACC%2Forg%2Frepo/commits', ['ACC']],
    ['/code/api/v1/repos/repo/commits', []],
    ['/code/api/v1/repos/repo/pullreq/7/comments', []],
    ['/code/api/v1/repos/repo', []],
    ['/ng/api/accounts', []],
    ['/ng/api/projects/ACC', []],
  ])('finds the account in %s', (path, accounts) => {
    expect(harness.accountsInPath?.(path)).toEqual(accounts)
  })

  it.each([
    ['pat.ACC.id.secret', 'ACC'],
    ['sat.ACC.id.secret', 'ACC'],
    ['pat.id.secret', undefined],
    ['other', undefined],
  ])('finds the account in the credential %s', (credential, account) => {
    expect(harness.accountInCredential?.(credential)).toBe(account)
  })
})

describe('the Everruns preset', () => {
  const findEverruns = finderOf(everruns)
  it.each([
    ['GET', '/v1/harnesses', 'read', 'safe'],
    ['POST', '/v1/harnesses', 'write', 'unsafe'],
    ['POST', '/v1/harnesses/preview', 'read', 'safe'],
    ['POST', '/v1/agents/analyze', 'read', 'safe'],
    ['POST', '/v1/capabilities/guardrails/dry-run', 'read', 'safe'],
    ['POST', '/v1/workspaces/w/fs/_/grep', 'read', 'safe'],
    ['PUT', '/v1/workspaces/w/fs/some/deep/path', 'write', 'safe'],
    ['GET', '/v1/memories/m/fs/a/b/c', 'read', 'safe'],
    ['POST', '/v1/apps/a/webhooks/c', 'webhook', 'unsafe'],
    ['POST', '/v1/things/search', 'read', 'safe'],
  ])('%s %s is of class %s and %s to repeat', (method, url, className, retry) => {
    expect(findEverruns(method, url)).toMatchObject({ class: className, retry })
  })

  it('knows its 202 operations', () => {
    const operations = everruns.routes().flatMap(({ methods }) => methods ?? [])
    expect(operations).toHaveLength(202)
  })
})

describe('the words of a path', () => {
  it.each([
    '/a/list',
    '/a/listV2',
    '/a/b/filter',
    '/a/filterBy',
    '/a/bulk-count',
    '/a/list/my-set',
    '/a/instancelist',
    '/a/v2/getIt',
    '/repos/r/diff/main..mine',
    '/repos/r/merge-check/main..mine',
    '/a/sample-data',
    '/a/metric-data',
    '/a/log-records',
    '/a/aggregatedAmount',
    '/a/partial-yaml-schema',
    '/a/ruleValidate',
  ])('%s sounds like reading', (path) => {
    expect(soundsLikeReading(path)).toBe(true)
  })
  it.each([
    '/a',
    '/a/b',
    '/a/allow-list',
    '/a/blocklist',
    '/a/playlists',
    '/a/checklist',
    '/a/inputSetList',
    '/a/listeners',
    '/a/recheck/x',
    '/a/database',
    '/a/recorder',
  ])('%s does not', (path) => {
    expect(soundsLikeReading(path)).toBe(false)
  })
  it.each(['/a/retrigger', '/a/reset-password/u1', '/a/cancel'])('%s sounds like changing', (path) => {
    expect(soundsLikeChanging(path)).toBe(true)
  })
  it.each(['/a/refresh/x', '/a/refresh-template/validate-inputs', '/a/refreshments', '/a/status'])(
    '%s does not sound like changing',
    (path) => {
      expect(soundsLikeChanging(path)).toBe(false)
    },
  )
})
