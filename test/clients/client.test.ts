import { describe, expect, it } from 'vitest'
import { clientOf, outOfScope } from '../../src/clients/client.ts'
import type { ClientScope } from '../../src/schema/client-schema.ts'

const ALIAS = '/gateway'

function judge(scope: ClientScope, method: string, path: string): string | undefined {
  return outOfScope(clientOf('bot', scope), { upstream: 'harness', class: 'read', method, path, aliasPrefix: ALIAS })
}

describe('the scope of a client', () => {
  it('restricts nothing that it does not name', () => {
    expect(judge({}, 'DELETE', '/anything;x=1')).toBeUndefined()
  })

  it.each<[ClientScope, string]>([
    [{ upstreams: ['tickets'] }, 'may not use harness, only tickets'],
    [{ classes: ['write'] }, 'may not make read calls, only write'],
    [{ methods: ['GET', 'PUT'] }, 'may not make POST calls, only GET, PUT'],
    [{ paths: ['/ng/api/*'] }, 'may not call this path'],
  ])('%j: %s', (scope, reason) => {
    expect(judge(scope, 'POST', '/pipeline/api')).toBe(reason)
  })

  it('holds in either class that an escaped slash may make of a call', () => {
    const call = { upstream: 'u', class: 'read', otherClass: 'admin', method: 'GET', path: '/', aliasPrefix: '' }
    expect(outOfScope(clientOf('bot', { classes: ['read'] }), call)).toBe('may not make admin calls, only read')
    expect(outOfScope(clientOf('bot', { classes: ['read', 'admin'] }), call)).toBeUndefined()
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
    // With an escaped slash, as a server that decodes it reads it, and as one that does not.
    ['/public/*', '/public/a%2Fb', true],
    ['/public/*', '/public%2Fa', false],
    ['/public/*', '/public/%252e%252e/secret', false],
    ['/public/*', '/public/..;/secret', false],
    ['/repos/{name}/tags', '/repos/a%2Fb/tags', false],
    ['/repos/{name}/tags', '/repos/a%255%2Fb/tags', false],
    ['/repos/{name}/tags', '/repos/a%25a%2Fb/tags', false],
    ['/repos/{name}/tags', '/repos/a%255xb/tags', true],
    ['/repos/{group}%2F{name}/tags', '/repos/a%2fb/tags', true],
    ['/repos/{group}%2F{name}/tags', '/repos/a/b/tags', false],
    ['/a b/{x}', '/a%20b/c%2B', true],
    ['/ä/*', '/%C3%A4/x', true],
    ['/{a}-{b}-{c}', '/1-2-3', true],
    ['/{a}-{b}-{c}', '/1--3', false],
    ['/{a}-{b}-{c}', '/1-2-', false],
    ['/{a}.{b}.json', '/x.y.z.json', true],
    ['/{a}{b}', '/x', false],
    ['/{a}{b}', '/xy', true],
    ['/v{a}.x*', '/v1.xyz/more', true],
    ['/v{a}.x*', '/v1/.x', false],
  ])('paths: %s and a call to %s', (pattern, path, isAllowed) => {
    expect(judge({ paths: [pattern] }, 'GET', path) === undefined).toBe(isAllowed)
  })
})
