import { describe, expect, it } from 'vitest'
import { clientOf, outOfScope } from '../../src/clients/client.ts'
import type { ClientScope } from '../../src/config/client-schema.ts'
import { normalizePath } from '../../src/routing/path.ts'

const ALIAS = '/gateway'

function judge(scope: ClientScope, method: string, path: string): string | undefined {
  const call = { upstream: 'harness', class: 'read', method, path, aliasPrefix: ALIAS }
  return outOfScope(clientOf('bot', scope), { ...call, normalPath: normalizePath(path, ALIAS) })
}

describe('the scope of a client', () => {
  it('restricts nothing that it does not name', () => {
    expect(judge({}, 'DELETE', '/anything;x=1')).toBeUndefined()
  })

  it.each<[ClientScope, string]>([
    [{ upstreams: ['tickets'] }, 'may not use harness'],
    [{ classes: ['write'] }, 'may not make read calls'],
    [{ methods: ['GET'] }, 'may not make POST calls'],
    [{ paths: ['/ng/api/*'] }, 'may not call this path'],
  ])('%j: %s', (scope, reason) => {
    expect(judge(scope, 'POST', '/pipeline/api')).toBe(reason)
  })

  it('takes a HEAD for a GET', () => {
    expect(judge({ methods: ['GET'] }, 'HEAD', '/x')).toBeUndefined()
  })

  it.each([
    ['/ng/api/*', '/ng/api/projects', true],
    ['/ng/api/*', '/ng/api', true],
    ['/ng/api/*', '/ng/apis', false],
    ['/ng/api*', '/ng/apis', true],
    ['/ng/api/projects', '/ng/api/projects/', true],
    ['/ng/api/projects', '/ng/api/projects/one', false],
    ['/ng/{any}/projects', '/ng/api/projects', true],
    ['/ng/{any}/projects', '/ng/a/b/projects', false],
    ['/v{number}/x', '/v2/x', true],
    ['/v{number}/x', '/w2/x', false],
    ['/a.b/x', '/a-b/x', false],
    ['/', '/', true],
    ['/*', '/anything/at/all', true],
    // However it is written, if a server takes it for the same.
    ['/ng/api/*', '/gateway/ng/api/projects', true],
    ['/ng/api/*', '//ng/./api//projects', true],
    ['/ng/api/*', '/%6eg/api/projects', true],
    // With parameters, as a server that looks at them reads it, and as one that does not.
    ['/ng/api/*', '/ng/api/projects;v=1', true],
    ['/public/*', '/public;/secret', false],
    ['/public/*', '/secret;/public/x', false],
  ])('paths: %s and a call to %s', (pattern, path, isAllowed) => {
    expect(judge({ paths: [pattern] }, 'GET', path) === undefined).toBe(isAllowed)
  })
})
