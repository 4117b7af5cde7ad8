import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generateKeyPairSync } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { type Document, parseDocument, type Scalar, visit } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { classifyByMethod } from '../../src/routing/route.ts'
import { RouteTable } from '../../src/routing/route-table.ts'
import { ROOT } from '../deploy/repository.ts'
import { newFolder } from '../support/gateway.ts'
import { loadConfigFile, problemsIn } from '../support/load-config.ts'

const VALID = `
upstreams:
  harness:
    preset: harness
    accounts:
      prod: { id: AbCdEf, credential: { value: "\${env:KEY}" } }
`

/** The lines of the error that a configuration causes. */
const problemsOf = (text: string, env: NodeJS.ProcessEnv = { KEY: 'pat.AbCdEf.id.secret' }): string[] =>
  problemsIn(text, env)

describe('a configuration', () => {
  it('is laid over its preset and the defaults', () => {
    const config = parseConfig(VALID, { env: { KEY: 'pat.AbCdEf.id.secret' } })
    const { harness } = config.upstreams
    expect(config.server).toMatchObject({ host: '127.0.0.1', port: 8080, workers: 1 })
    expect(harness).toMatchObject({
      url: 'https://app.harness.io',
      credentialHeader: 'x-api-key',
      queue: { maxWait: 10_000, maxWaiting: 1000 },
      retry: { retries: 5, baseDelay: 1_000, maxDelay: 60_000, budget: 0.2 },
      breaker: { failures: 5, reset: 60_000 },
      timeouts: { connect: 5_000, headers: 60_000, idle: 300_000, total: 120_000 },
    })
    expect(harness!.limits['read']).toEqual([{ requests: 1000, window: 60_000 }])
  })

  it('overrides the limits of its preset class by class', () => {
    const config = parseConfig(
      VALID.replace('preset: harness', 'preset: harness\n    limits: { write: [{ requests: 7, window: 2s }] }'),
      { env: { KEY: 'pat.AbCdEf.id.secret' } },
    )
    expect(config.upstreams['harness']!.limits).toMatchObject({
      read: [{ requests: 1000, window: 60_000 }],
      write: [{ requests: 7, window: 2_000 }],
    })
  })

  it('accepts the whole example of the design', () => {
    const env = { HARNESS_API_KEY: 'pat.AbCdEf.x.y', TICKETS: 'secret', SLUICE_ADMIN_TOKEN: 'token' }
    const text = `
server: { host: 127.0.0.1, port: 8080, workers: 1 }
admin:  { host: 127.0.0.1, port: 9090, token: "\${env:SLUICE_ADMIN_TOKEN}" }
store:  { kind: memory }
defaultUpstream: harness
upstreams:
  harness:
    preset: harness
    accounts:
      prod:
        id: AbCdEf
        credential: { value: "\${env:HARNESS_API_KEY}" }
    queue:    { maxWait: 10s, maxWaiting: 1000 }
    retry:    { retries: 5, baseDelay: 1s, maxDelay: 60s, budget: 20% }
    breaker:  { failures: 5, reset: 60s }
    timeouts: { connect: 5s, headers: 60s, idle: 300s, total: 120s }
    concurrency: { read: 10, write: 5 }
  tickets:
    url: https://api.tickets.example/v2
    accounts:
      main: { credential: { header: authorization, value: "Bearer \${env:TICKETS}" } }
    limits:
      read:  [{ requests: 1000, window: 60s }]
      write: [{ requests: 300, window: 60s }, { requests: 20, window: 1s }]
    routes:
      - { method: [GET, HEAD], path: "/*", class: read }
      - { method: POST, path: "/search", class: read, retry: safe }
      - { path: "/*", class: write }
clients:
  deploy-bot:
    keys: ["sha256:${'0'.repeat(64)}"]
    accounts: [harness/prod]
    classes: [read, write]
    share: 40%
    networkAccess: { allowed: [], blocked: [] }
`
    const config = parseConfig(text, { env })
    expect(config.clients!['deploy-bot']).toMatchObject({ share: 0.4, classes: ['read', 'write'] })
    expect(config.upstreams['tickets']!.accounts['main']!.credential!.value!.reveal()).toBe('Bearer secret')
  })

  it('says so where a list stands in the place of a client', () => {
    expect(problemsOf(`${VALID}clients:\n  bot: [x]\n`)).toEqual(['sluice.yaml:8:3: clients.bot: must be a mapping'])
  })

  it('reports everything that is wrong at once, in the order of the file, with line and column', () => {
    const text = `
server: { prot: 8080, host: 0.0.0.0 }
store: { kind: redis }
upstreams:
  harness:
    preset: harnes
    accounts:
      prod: { id: 5, credential: { value: "\${env:MISSING}" } }
    retry: { retries: many, baseDelay: 10 }
    timeout: {}
    BREAKER: {}
  tickets:
    url: ftp://x
    accounts: {}
defaultUpstream: ticket
`
    expect(problemsOf(text)).toEqual([
      'sluice.yaml:2:11: server.prot: unknown key "prot"; did you mean "port"?',
      'sluice.yaml:2:29: server.host: clients must be configured when the gateway listens beyond loopback',
      'sluice.yaml:3:1: store: store.kind is redis, so one of url, sentinels or cluster is needed',
      'sluice.yaml:6:13: upstreams.harness.preset: must be one of harness, everruns, github, slack, pagerduty, jira, cloudflare, confluence, gitlab, shopify, hubspot, datadog, openai, anthropic, azure-openai; did you mean "harness"?',
      'sluice.yaml:8:19: upstreams.harness.accounts.prod.id: must be a text: put quotes around it',
      'sluice.yaml:8:43: upstreams.harness.accounts.prod.credential.value: the environment variable MISSING is not set',
      'sluice.yaml:9:23: upstreams.harness.retry.retries: must be a whole number',
      'sluice.yaml:9:40: upstreams.harness.retry.baseDelay: must be a duration such as 500ms, 30s, 5m or 1h',
      'sluice.yaml:10:5: upstreams.harness.timeout: unknown key "timeout"; did you mean "timeouts"?',
      'sluice.yaml:11:5: upstreams.harness.BREAKER: unknown key "BREAKER"; did you mean "breaker"?',
      'sluice.yaml:13:10: upstreams.tickets.url: must be an http:// or https:// URL without user, query or fragment',
      'sluice.yaml:14:5: upstreams.tickets.accounts: at least one account is needed',
      'sluice.yaml:15:18: defaultUpstream: there is no such upstream; did you mean "tickets"?',
    ])
  })

  it.each([
    ['an empty file', '', 'sluice.yaml:1:1: upstreams: the key "upstreams" is missing'],
    ['a list', '- a', 'sluice.yaml:1:1: must be a mapping'],
    ['broken YAML', 'a: [1', 'Flow sequence in block collection must be'],
    ['a key given twice', 'log: {}\nlog: {}\n', 'sluice.yaml:2:1: log: the key "log" is given twice, first in line 1'],
    ['a name with capitals', 'upstreams: { Harness: {} }', '"Harness" is no valid name'],
    [
      'a window that is too short',
      `${VALID}    limits: { read: [{ requests: 1, window: 50ms }] }`,
      'must be from 100ms to 24h',
    ],
    [
      'two limits with one window',
      `${VALID}    limits: { read: [{ requests: 1, window: 1s }, { requests: 2, window: 1s }] }`,
      'another limit has the same window',
    ],
    [
      'a route of an unknown class',
      `${VALID}    routes: [{ path: /x, class: reads }]`,
      'this class has no entry in limits; did you mean "read"?',
    ],
    [
      'a key that is no hash',
      `${VALID}clients: { a: { keys: [secret] } }`,
      'clients.a.keys[0]: must be "sha256:" and 64 hex digits',
    ],
    [
      'one key of two clients',
      `${VALID}clients: { a: { keys: ["sha256:${'1'.repeat(64)}"] }, b: { keys: ["sha256:${'1'.repeat(64)}"] } }`,
      'client "a" has the same key',
    ],
    [
      'a client of an unknown account',
      `${VALID}clients: { a: { keys: ["sha256:${'1'.repeat(64)}"], accounts: [harness/prd] } }`,
      'did you mean "harness/prod"?',
    ],
    ['some number of workers', `${VALID}server: { workers: all }`, 'a number from 1 to 256, or auto'],
    ['an admin port for all without a token', `${VALID}admin: { host: 0.0.0.0 }`, 'admin.token is required'],
    ['an admin token with a line end', `${VALID}admin: { token: "a\\nb" }`, 'admin.token: holds a control character'],
    ['one of several', `${VALID}admin: { tokens: { ci: "a\\nb" } }`, 'admin.tokens.ci: holds a control character'],
    ['a token for metrics that no header holds', `${VALID}admin: { metricsToken: "ł" }`, 'admin.metricsToken: holds a'],
    [
      'one admin token of two people',
      `${VALID}admin: { tokens: { alice: topsecret, bob: topsecret } }`,
      'admin.tokens.bob: has the value of admin.tokens.alice: give each token its own',
    ],
    [
      'the name of the admin token for another one',
      `${VALID}admin: { token: a, tokens: { admin: b } }`,
      'admin.tokens.admin: is how the audit trail names admin.token',
    ],
    ...['my host', '127.0.0.1:8080', '[::1]', '', 'h/x', '*', 'https://h'].flatMap((host): [string, string, string][] =>
      ['server', 'admin', 'forwardProxy'].map((listener) => [
        `"${host}" as the host of ${listener}`,
        `${VALID}${listener}: { host: "${host}" }`,
        `${listener}.host: must be an address or a name of this machine, such as 127.0.0.1`,
      ]),
    ),
    ['one port for two listeners', `${VALID}server: { port: 9090 }`, 'they must differ'],
    [
      'a credential of another account',
      VALID.replace('AbCdEf,', 'Other,'),
      'prod.id: the credential belongs to another account',
    ],
    ['a percentage above 100', `${VALID}    retry: { budget: 120% }`, 'must be a percentage such as 20%'],
    ['a percentage just above 100', `${VALID}    retry: { budget: 100.5% }`, 'must be a percentage such as 20%'],
    ['a URL with an impossible port', `${VALID}    url: "http://x:99999"`, 'url: must be an http:// or https:// URL'],
    [
      'a Redis with an impossible port',
      `${VALID}store: { kind: redis, url: "redis://x:99999" }`,
      'url: must be a redis',
    ],
    ...['https://h /x', 'https://h/a b', 'https://h/a\\\\b', 'https://h\\\\b'].flatMap(
      (url): [string, string, string][] => [
        [`the URL ${url}`, `${VALID}    url: "${url}"`, 'harness.url: must be an http:// or https:// URL'],
        [
          `the token endpoint ${url}`,
          VALID.replace('{ value: ', `{ type: oauth2, tokenUrl: "${url}", clientId: x, clientSecret: `),
          'tokenUrl: must be an http:// or https:// URL',
        ],
      ],
    ),
    ...['"/choices/*/n"', '[/n, "/*"]'].map((body): [string, string, string] => [
      `a price at ${body}`,
      `${VALID}    price: { unit: usd, reserve: 1, response: { values: { n: { body: ${body} } } } }`,
      'values.n.body: must be a JSON pointer such as /usage/total_tokens, without "*" for every member, or a list',
    ]),
    ...[
      '{ values: { max: { header: x } } }, reserve: 1',
      '{ values: { min: { header: x } }, formula: min }, reserve: 1',
      '{ values: { n: { header: x } } }, reserve: { values: { bytes: { body: /n } }, most: 1 }',
    ].map((response): [string, string, string] => [
      `the name of what formulas know for a value: ${response}`,
      `${VALID}    price: { unit: usd, response: ${response} }`,
      '": choose another name',
    ]),
    ['a URL with port 0', `${VALID}    url: "https://h:0/x"`, 'harness.url: must be an http:// or https:// URL'],
    ['a proxy with port 0', `${VALID}    proxy: "http://h:0"`, 'harness.proxy: must be the URL of a proxy'],
    ['a Redis with port 0', `${VALID}store: { kind: redis, url: "redis://h:0" }`, 'store.url: must be a redis'],
    ['a webhook with port 0', `${VALID}webhooks: { a: { url: "http://h:0" } }`, 'webhooks.a.url: must be an http://'],
    ...['127.0.0.1:99999', 'a:0', 'a:00', '[zz]:1', 'a/b:1'].map((place): [string, string, string] => [
      `a node of Redis at ${place}`,
      `${VALID}store: { kind: redis, cluster: ["${place}"] }`,
      'store.cluster[0]: must be host:port, with a port from 1 to 65535',
    ]),
    [
      'a brace in the keys of Redis',
      `${VALID}store: { kind: redis, url: "redis://h", prefix: "{}" }`,
      'store.prefix: must be a text without',
    ],
    ['a sentinel without a port', `${VALID}store: { kind: redis, sentinels: [x] }`, 'sentinels[0]: must be host:port'],
    [
      'a value of a price with a hyphen',
      `${VALID}    price: { unit: usd, reserve: 1, response: { values: { input-tokens: { header: x } } } }`,
      '"input-tokens" is no valid name: it must be a name of letters, digits and "_", beginning with',
    ],
    [
      'a body of a refusal without a pointer',
      `${VALID}    throttle: { when: [{ body: { error: x } }] }`,
      '"error" is no valid name: it must be a JSON pointer such as /error',
    ],
    [
      'a header of a webhook that is none',
      `${VALID}webhooks: { ops: { url: "https://h", headers: { a b: x } } }`,
      '"a b" is no valid name: it must be a header name',
    ],
    ['a class that no header can name', `${VALID}    limits: { 写: [] }`, '"写" is no valid name'],
    [
      'an account id that no header can hold',
      VALID.replace('AbCdEf,', '写,').replace('${env:KEY}', 'x'),
      'prod.id: holds a character that no header value may have, but goes upstream in Harness-Account',
    ],
    ['an account header that is none', `${VALID}    accountHeader: "a b"`, 'accountHeader: must be a header name'],
    ['a claim in no header', `${VALID}    accountClaims: { headers: [ü] }`, 'headers[0]: must be a header name'],
    [
      'a claim in a path without an account',
      `${VALID}    accountClaims: { paths: ["/v1/accounts/{acount}"] }`,
      'accountClaims.paths[0]: must have {account} where the account stands',
    ],
    ...(
      [
        ['a route', 'routes: [{ path: /gateway/ng/api/x, class: read }]', 'routes[0].path'],
        ['a claim', 'accountClaims: { paths: ["/gateway/x/{account}"] }', 'accountClaims.paths[0]'],
        ['an account in a query', 'accountQuery: { name: a, paths: [/x, /gateway/x] }', 'accountQuery.paths[1]'],
      ] as const
    ).map(([what, text, place]): [string, string, string] => [
      `${what} by the prefix under which the vendor serves its paths again`,
      `${VALID}    ${text}`,
      `${place}: leave out /gateway`,
    ]),
    ...['', 'a&b=c'].map((name): [string, string, string] => [
      `the parameter "${name}" for an account`,
      `${VALID}    accountQuery: { name: "${name}", paths: [/] }`,
      'accountQuery.name: must be a name of letters',
    ]),
    ...['/api/*', '/v1/{x}', '/x?y', 'x'].map((path): [string, string, string] => [
      `${path} as the beginning of paths`,
      `${VALID}    accountQuery: { name: a, paths: ["${path}"] }`,
      'accountQuery.paths[0]: must be the beginning of paths, such as /api',
    ]),
    ['no time at all', `${VALID}    timeouts: { headers: 0s }`, 'timeouts.headers: must be from 1ms to 24h'],
    ['more time than a timer takes', `${VALID}    breaker: { reset: 700h }`, 'breaker.reset: must be from 1ms to 24h'],
    [
      'a login without Redis',
      `${VALID}store: { username: x }`,
      'store.username: username belongs to store.kind: redis',
    ],
    [
      'a password without Redis',
      `${VALID}store: { password: x }`,
      'store.password: password belongs to store.kind: redis',
    ],
    [
      'a master of no sentinels',
      `${VALID}store: { kind: redis, url: "redis://h", master: x }`,
      'store.master: master belongs to sentinels',
    ],
    ['an account with an empty id', VALID.replace('AbCdEf', '""'), 'accounts.prod.id: must not be an empty text'],
    ['an empty list', `${VALID}clients: { a: { classes: [] } }`, 'clients.a.classes: must not be an empty list'],
    [
      'an empty mapping',
      `${VALID}clients: { a: { tokens: [{ issuer: x, claims: {} }] } }`,
      'claims: must not be an empty m',
    ],
    [
      'a header of a refusal that is a number',
      `${VALID}    throttle: { when: [{ header: { x: 5 } }] }`,
      'when[0].header.x: must be a text, or a list of texts',
    ],
    ['a client certificate without its key', `${VALID}    tls: { cert: x }`, 'cert and key go together'],
  ])('refuses %s', (_, text, expected) => {
    expect(problemsOf(text).join('\n')).toContain(expected)
  })

  it.each(['constructor', 'toString', 'valueOf', '__proto__'])(
    'takes %s for no preset, and for none of its sets',
    (word) => {
      expect(problemsOf(`${VALID}    limitSet: ${word}`)).toEqual([
        expect.stringContaining('upstreams.harness.limitSet: there is no such set'),
      ])
      expect(problemsOf(VALID.replace('preset: harness', `preset: ${word}\n    limitSet: ${word}`))).toEqual([
        expect.stringContaining('upstreams.harness.preset: must be one of harness, everruns'),
      ])
    },
  )

  it('takes toString for no price', () => {
    const price = `{ unit: usd, reserve: 1, response: { values: { toString: { header: x } } }, list: { m: { other: 1 } } }`
    expect(problemsOf(`${VALID}    price: ${price}`).join('\n')).toContain('price.list.m: has no price for toString')
  })

  it.each([
    ['no other region', { weights: { eu: 1 } }, 'regions.weights: at least two regions are needed'],
    [
      'a region without a weight',
      { name: 'ue' },
      'regions.name: must be one of the regions that weights names; did you',
    ],
    [
      'a word of JavaScript as one',
      { name: 'constructor' },
      'regions.name: must be one of the regions that weights names',
    ],
    ['a name that is none', { weights: { eu: 1, 'u s': 1 } }, '"u s" is no valid name'],
    ['no weight', { weights: { eu: 0, us: 1 } }, 'weights.eu: must be at least 1'],
    ['no home', { home: {} }, 'regions.home: one of url and sentinels is needed; a cluster can not be home'],
    ['two homes', { home: { url: 'redis://h:1', sentinels: ['h:1'] } }, 'regions.home: one of url and sentinels is'],
    ['a cluster as home', { home: { cluster: ['h:1'] } }, 'regions.home.cluster: unknown key "cluster"'],
    [
      'TLS without TLS',
      { home: { url: 'redis://h:1', tls: {} } },
      'home.tls: the url is redis://, so tls does nothing',
    ],
    ['a master of no sentinels', { home: { url: 'redis://h:1', master: 'x' } }, 'home.master: master belongs to sent'],
    ['half a certificate', { home: { url: 'rediss://h:1', tls: { cert: 'x' } } }, 'home.tls: cert and key go together'],
    ['more than all in reserve', { reserve: '101%' }, 'regions.reserve: must be a percentage such as 20%'],
    ['a lease that ends at once', { lease: '2999ms' }, 'regions.lease: must be from 3s to 5m'],
    [
      'calls longer than the longest',
      { longestCall: '59s' },
      'timeouts.headers: must not be longer than store.regions.lon',
    ],
    [
      'the embedded store',
      { kind: 'memory' },
      'store.regions: regions need store.kind: redis, with a Redis in each region',
    ],
  ])(
    'refuses to split quotas over regions with %s',
    (_, { kind = 'redis', ...wrong }: Record<string, unknown>, expected) => {
      const regions = { name: 'eu', weights: { eu: 1, us: 2 }, home: { url: 'redis://:hidden@h:1' }, ...wrong }
      const store = { kind, ...(kind === 'redis' ? { url: 'redis://h:2' } : {}), regions }
      const problems = problemsOf(`${VALID}store: ${JSON.stringify(store)}`)
      expect(problems.join('\n')).toContain(expected)
      expect(problems.join('\n')).not.toContain('hidden')
    },
  )

  it('does not blame the name of a region for a weight that is wrong', () => {
    const regions = { name: 'eu', weights: { eu: 0, us: 1 }, home: { url: 'redis://h:1' } }
    const store = { kind: 'redis', url: 'redis://h:2', regions }
    const [problem, ...others] = problemsOf(`${VALID}store: ${JSON.stringify(store)}`)
    expect(problem).toContain('store.regions.weights.eu: must be at least 1')
    expect(others).toEqual([])
  })

  it.each([
    '/a/*/b',
    '/a/**',
    '/a/{x}*',
    '/a/{id}?',
    '/a?b',
    '/a#b',
    '/a/{id',
    '/a/id}',
    '/a/{{x}}',
    '/a/{}',
    '/a/{x/y}',
    'a',
    '/g;x',
    '/a;v=1/b',
    '/a/../b',
    '/a/./b',
    '/..',
    '/a/%2e%2E/b',
    '/a/.%2e',
  ])('refuses the route path %s, and the same path of a client', (path) => {
    const problems = problemsOf(`${VALID}    routes: [{ path: "${path}", class: read }]`)
    expect(problems.join()).toContain('routes[0].path: must be a path that begins with "/"')
    expect(problemsOf(`${VALID}clients: { a: { paths: ["${path}"] } }`).join()).toContain('a.paths[0]: must be a path')
  })

  it.each(['FOO', '[GET, FOO]'])('refuses a route for %s, which is no method that can be received', (method) => {
    const problems = problemsOf(`${VALID}    routes: [{ method: ${method}, path: /a, class: read }]`)
    expect(problems.join()).toMatch(/routes\[0\]\.method\S*: must be an HTTP method/)
  })

  it('blames the item of `charges` that is no class, and not the class of the route', () => {
    const of = (route: string) =>
      problemsOf(`${VALID}    routes: [{ path: /x, ${route} }]`).map((line) => line.slice(17))
    expect(of('class: read, charges: [read, wriet, all]')).toEqual([
      expect.stringMatching(/routes\[0\]\.charges\[1\]: this class has no entry in limits; did you mean "write"\?$/),
      expect.stringMatching(/routes\[0\]\.charges\[2\]: "all" is no class of calls/),
    ])
    expect(of('class: reads, charges: [reads]')).toEqual([
      expect.stringContaining('routes[0].class: this class has no'),
    ])
  })

  it.each(['HEAD', '[HEAD]', '[POST, HEAD]'])('refuses a route for %s, which no call would take', (method) => {
    const problems = problemsOf(`${VALID}    routes: [{ method: ${method}, path: /a, class: read }]`)
    expect(problems).toEqual([
      expect.stringContaining('routes[0].method: a HEAD has the route of the GET: write GET in place of HEAD'),
    ])
    const both = problemsOf(`${VALID}    routes: [{ method: [GET, HEAD], path: /a, class: read }]`)
    expect(both).toEqual([])
  })

  it.each([
    '/',
    '/*',
    '/a/b*',
    '/a/{x}/*',
    '/a/{x}(y',
    '/a/{x}(^(a+)+$)',
    '/v1/{x}:stop',
    '/a/{x}{y}',
    '/a(b):c/%zz',
    '/...',
    '/.well-known/a..b',
    '/a%3Bb',
  ])('takes the route path %s, and a table can be made of it', (path) => {
    const text = `${VALID}    routes: [{ path: "${path}", class: read }]`
    const { routes } = parseConfig(text, { env: { KEY: 'pat.AbCdEf.id.secret' } }).upstreams['harness']!
    const layer = routes.map(({ path, class: name }) => ({ path, rule: { class: name } }))
    expect(() => new RouteTable({ layers: [layer], classify: classifyByMethod })).not.toThrow()
  })

  it('may let calls wait not at all, and a drain end at once', () => {
    const text = `${VALID}    queue: { maxWait: 0s }\nserver: { drain: 0s }`
    expect(problemsOf(text)).toEqual([])
  })

  it('takes hosts, wildcards and URL prefixes for addresses, and nothing else', () => {
    const clientWith = (entry: string): string =>
      `${VALID}clients: { a: { keys: ["sha256:${'1'.repeat(64)}"], networkAccess: { blocked: ["${entry}"] } } }`
    for (const entry of [
      'h',
      '*.vendor.example',
      'bücher.example',
      '127.0.0.1',
      '[::1]',
      'https://h:8443/v1',
      'http://h',
    ]) {
      expect(problemsOf(clientWith(entry)), entry).toEqual([])
    }
    for (const entry of [
      'https//typo',
      'h:80',
      '*.',
      '*',
      'h/v1',
      'https://h:99999/',
      'https://u@h/',
      'https://h/?q',
      'https://h/admin/*',
      'https://*.internal/',
      '[::g]',
      'a%b',
      '',
    ]) {
      expect(problemsOf(clientWith(entry)), entry).toEqual([
        expect.stringContaining('blocked[0]: must be a host, *.host, or the beginning of a URL, without "*"'),
      ])
    }
  })

  it('takes names and addresses for hosts, and nothing with a port, a path or a wildcard', () => {
    const texts = (host: string): string[] => [
      `${VALID}    hosts: ["${host}"]`,
      `${VALID}server: { hosts: ["${host}"] }`,
    ]
    for (const host of ['h', 'API.internal.', 'bücher.example', 'a_b', '10.0.0.5', '[::1]'])
      for (const text of texts(host)) expect(problemsOf(text), host).toEqual([])
    for (const host of [
      'h:8443',
      'https://h/x',
      'h/x',
      'a b',
      '::1',
      '[::g]',
      '*.x.y',
      '*',
      '',
      '.',
      '.h',
      'a..b',
      '。',
      '%61',
    ])
      for (const text of texts(host))
        expect(problemsOf(text).join(), host).toMatch(/hosts\[0\]: must be a host alone, such as api\.example\.com/)
  })

  it.each([
    ['an alias without an anchor', 'a: *topsecret', '1:4: there is no anchor of this name before it; put quotes'],
    [
      'a block text that begins on its first line',
      'a: |topsecret',
      '1:5: Block scalar header includes extra characters',
    ],
    ['what is left over', 'a: {}\n}topsecret', '2:1: Unexpected flow-map-end token in YAML stream: a bracket'],
  ])('refuses %s, without showing it', (_, text, expected) => {
    const problems = problemsOf(text).join('\n')
    expect(problems).toContain(expected)
    expect(problems).not.toContain('topsecret')
  })

  it.each([
    [
      'an upstream',
      'upstreams: { constructor: { url: "http://x", accounts: { main: {} } } }',
      '1:14: upstreams.constructor',
    ],
    ['an account', `${VALID}      constructor: { id: x }`, '7:7: upstreams.harness.accounts.constructor'],
    ['a class', `${VALID}    limits: { prototype: [] }`, '7:15: upstreams.harness.limits.prototype'],
    [
      'a client',
      `${VALID}clients: { constructor: { keys: ["sha256:${'1'.repeat(64)}"] } }`,
      '7:12: clients.constructor',
    ],
  ])('refuses %s that the schema library would leave out', (_, text, place) => {
    const problems = problemsOf(text)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(`sluice.yaml:${place}: "`)
    expect(problems[0]).toContain('is no valid name')
    // It is no reference, which some commands do without.
    expect(() => parseConfig(text, { ignores: () => true })).toThrow('is no valid name')
  })

  it.each(['Transfer-Encoding', 'content-length', 'HOST', 'Connection', 'Upgrade', 'Expect', 'Via'])(
    'refuses to add %s to every request',
    (name) => {
      for (const [text, place] of [
        [VALID.replace('value:', `header: ${name}, value:`), 'credential.header'],
        [`${VALID}    credentialHeader: ${name}`, 'credentialHeader'],
        [`${VALID}    accountHeader: ${name}`, 'accountHeader'],
      ] as const) {
        expect(problemsOf(text).join(), place).toContain(`${place}: must be the name of a header that can be added`)
      }
    },
  )

  it('has a copy for every alias: defaults of one place are not those of another', () => {
    const config = parseConfig(`${VALID}server: &s { host: localhost, port: 0 }\nadmin: *s`, { env: { KEY: 'k' } })
    expect(config.admin).toMatchObject({ host: 'localhost', port: 0 })
    expect(problemsOf(`${VALID}server: &s { prt: 0 }\nadmin: *s`)).toEqual([
      expect.stringContaining('server.prt: unknown key "prt"'),
      expect.stringContaining('admin.prt: unknown key "prt"'),
    ])
  })

  it('refuses aliases that multiply', () => {
    const names = 'abcdefgh'.split('')
    const lines = names.map(
      (name, i) =>
        `${name}: &${name} [${Array(9)
          .fill(i === 0 ? 'x' : `*${names[i - 1]}`)
          .join()}]`,
    )
    expect(problemsOf(lines.join('\n'))).toEqual(['sluice.yaml: its aliases stand for too many values'])
  })

  it.each(['12#34', '12/34', '12?34', 'a%zz', 'a%', 'a b'])(
    'refuses a Redis URL with %j in its password, without showing it',
    (password) => {
      for (const url of [`redis://bob:${password}@h:6379/0`, `rediss://:${password}@h`]) {
        const problems = problemsOf(`${VALID}store: { kind: redis, url: "${url}" }`).join('\n')
        expect(problems).toContain('store.url: must be a redis:// or rediss:// URL; percent-encode')
        expect(problems).not.toContain(password)
      }
    },
  )

  it.each(['127.0.0.1', '::1', 'localhost', 'fe80::1%lo', 'gateway.internal'])('listens on %s', (host) => {
    const clients = 'clients: { a: { keys: ["sha256:' + '1'.repeat(64) + '"] } }'
    expect(problemsOf(`${VALID}server: { host: "${host}" }\n${clients}`)).toEqual([])
  })

  it('takes every form of a Redis URL', () => {
    for (const url of ['redis://h', 'rediss://h:1/', 'redis://:p%23%2f@h:1/7', 'redis://u:p@q@[::1]/0?family=6']) {
      expect(problemsOf(`${VALID}store: { kind: redis, url: "${url}" }`), url).toEqual([])
    }
  })

  it('refuses a credential that is no header value, without showing it', () => {
    const problems = problemsOf(VALID, { KEY: 'pat.AbCdEf.x.secret\nX-Evil: 1' }).join('\n')
    expect(problems).toContain('credential.value: holds a control character')
    expect(problems).not.toContain('secret')
  })

  const account = (fields: string, rest = ''): string =>
    `upstreams: { h: { url: "https://h.example", accounts: { a: { ${fields} } } } }\n${rest}`
  const aws = `type: sigv4, accessKeyId: ${'A'.repeat(16)}, region: r, service: s`

  it.each([
    ['credential.value', account('credential: { type: query, parameter: key, value: "${env:S}" }')],
    ['credential.username', account('credential: { type: basic, username: "${env:S}", password: x }')],
    [
      'clientId',
      account('credential: { type: oauth2, tokenUrl: "https://h/", clientId: "${env:S}", clientSecret: x }'),
    ],
    ['Secret', account('credential: { type: oauth2, tokenUrl: "https://h/", clientId: x, clientSecret: "${env:S}" }')],
    ['secretAccessKey', account(`credential: { ${aws}, secretAccessKey: "\${env:S}" }`)],
    ['accounts.a.id', account('id: "${env:S}"')],
    ['credentials[0].value', account('credentials: [{ name: one, value: "${env:S}" }]')],
    ['store.password', account('', 'store: { kind: redis, url: "redis://h", password: "${env:S}" }')],
    ['vault.token', account('', 'secrets: { vault: { url: "https://h", token: "${env:S}" } }')],
    ['traces.headers.x', account('', 'telemetry: { traces: { headers: { x: "${env:S}" } } }')],
    ['webhooks.w.headers.x', account('', 'webhooks: { w: { url: "https://h", headers: { x: "${env:S}" } } }')],
  ])('refuses a secret that ends with a line end, without showing it: %s', (place, text) => {
    for (const [end, fault] of [
      ['\n', 'ends with a line end, which is no part of it: leave it out'],
      ['\0x', 'holds a control character'],
    ] as const) {
      const problems = problemsOf(text, { S: `hidden${end}` })
      expect(problems).toEqual([expect.stringContaining(`${place}: ${fault}`)])
      expect(problems.join()).not.toContain('hidden')
    }
  })
})

describe('the header for the id of an account', () => {
  const upstream = (credential: string, rest: string): string =>
    `upstreams: { h: { url: "https://h.example", accounts: { a: { id: x, ${credential} } }, ${rest} } }`

  it.each([
    ['credential: { value: x }', 'accountHeader: Authorization'],
    ['credential: { value: x }', 'credentialHeader: x-key, accountHeader: X-Key'],
    ['credential: { header: X-Key, value: x }', 'accountHeader: x-key'],
    ['credential: { value: x, next: { header: X-Key, value: x } }', 'accountHeader: x-key'],
    ['credentials: [{ name: one, type: bearer, value: x }]', 'credentialHeader: x-key, accountHeader: authorization'],
    [
      'credential: { value: x }',
      'credentialHeader: x-key, accountHeader: authorization, limits: { r: [] }, routes: [{ path: /, class: r, credential: bearer }]',
    ],
  ])('is none that carries the credential: %s, %s', (credential, rest) => {
    expect(problemsOf(upstream(credential, rest))).toEqual([
      expect.stringContaining('upstreams.h.accountHeader: is a header of the credential'),
    ])
  })

  it('may be one that a credential would have by another type, and is not judged by a wrong one', () => {
    const basic = 'credential: { type: basic, username: x, password: x }'
    expect(problemsOf(upstream(basic, 'accountHeader: x-key'))).toEqual([])
    const query = 'credential: { type: query, parameter: key, value: x }'
    expect(problemsOf(upstream(query, 'credentialHeader: x-key, accountHeader: authorization'))).toEqual([])
    expect(problemsOf(upstream(query, 'accountQuery: { name: key, paths: [/] }'))).toEqual([
      expect.stringContaining('upstreams.h.accountQuery.name: is the parameter of the credential'),
    ])
    const wrong = problemsOf(
      upstream('credential: { header: x-key, value: x }', 'credentialHeader: "a b", accountHeader: authorization'),
    )
    expect(wrong).toEqual([expect.stringContaining('credentialHeader: must be a header name')])
  })
})

describe('a certificate', () => {
  const tls = (place: string, value: object): string => {
    const text = JSON.stringify(value)
    const store = (fields: string): string => `${VALID}store: { kind: redis, url: "rediss://h", ${fields} }`
    const home = `{ url: "rediss://h", tls: ${text} }`
    const texts: Record<string, string> = {
      'upstreams.harness.tls': `${VALID}    tls: ${text}`,
      'store.tls': store(`tls: ${text}`),
      'store.regions.home.tls': store(`regions: { name: eu, weights: { eu: 1, us: 1 }, home: ${home} }`),
      'webhooks.ops.tls': `${VALID}webhooks: { ops: { url: "https://h", tls: ${text} } }`,
      'server.tls': `${VALID}server: { tls: ${text} }`,
      'secrets.vault': `${VALID}secrets: { vault: { url: "https://h", token: x, ...: 0 } }`.replace(
        '...: 0',
        text.slice(1, -1),
      ),
    }
    return texts[place]!
  }
  const [good = '', another = ''] = rootCertificates
  const authorities = [
    'upstreams.harness.tls',
    'store.tls',
    'store.regions.home.tls',
    'webhooks.ops.tls',
    'secrets.vault',
  ]

  it.each(authorities)('that is none is no authority: %s', (place) => {
    const cut = another.slice(0, 400)
    const empty = '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----'
    for (const ca of ['/tmp/c.pem', 'junk', '', empty, cut, `${good}\n${cut}`, `${good}\n${empty}`, `${cut}\n${good}`])
      expect(problemsOf(tls(place, { ca })), ca).toEqual([
        expect.stringContaining(`: ${place}.ca: is no PEM of a certificate: to read a file, write \${file:/path}`),
      ])
    for (const ca of [
      good,
      `${good}\n${another}\n`,
      `# Root of x\n${good}\nand another\n${another}`.replaceAll('\n', '\r\n'),
    ])
      expect(problemsOf(tls(place, { ca })), ca).toEqual([])
  })

  it.each(authorities.slice(0, -1))('and a key that are none are refused, without being shown: %s', (place) => {
    const problems = problemsOf(tls(place, { ca: good, cert: '/tmp/c.pem', key: 'hidden' }))
    expect(problems).toEqual([
      expect.stringContaining(`: ${place}.cert: is no PEM of a certificate: to read a file`),
      expect.stringContaining(`: ${place}.key: is no PEM of a private key: to read a file`),
    ])
    expect(problems.join()).not.toContain('hidden')
  })

  it('and its key are told apart: which of them is wrong, and whether they fit', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const keyIn = (type: 'pkcs1' | 'pkcs8', options = {}) => privateKey.export({ type, format: 'pem', ...options })
    const locked = { cipher: 'aes-256-cbc', passphrase: 'x' }
    for (const [cert, key, problem] of [
      [good, keyIn('pkcs8'), 'key: is not the key of the first certificate in cert'],
      ['x', keyIn('pkcs8'), 'cert: is no PEM of a certificate: to read a file'],
      [good, good, 'key: is no PEM of a private key: to read a file'],
      [good, keyIn('pkcs8', locked), 'key: is a private key with a password: take that off'],
      [good, keyIn('pkcs1', locked), 'key: is a private key with a password: take that off'],
    ])
      expect(problemsOf(tls('server.tls', { cert, key }))).toEqual([expect.stringContaining(`server.tls.${problem}`)])
  })

  it('that is none proves no client', () => {
    const problems = problemsOf(tls('server.tls', { cert: 'x', key: 'hidden', clientCa: 'junk' }))
    expect(problems.join('\n')).toContain('server.tls.clientCa: is no PEM of a certificate')
    expect(problems.join('\n')).toContain('server.tls.cert: is no PEM of a certificate')
    expect(problems.join()).not.toContain('hidden')
  })

  it('is demanded of clients only where it is said whose are believed', () => {
    const problems = problemsOf(tls('server.tls', { cert: 'x', key: 'hidden', requireClientCertificate: true }))
    expect(problems.join('\n')).toContain('server.tls.requireClientCertificate: it needs clientCa')
    const wrong = problemsOf(
      tls('server.tls', { cert: 'x', key: 'hidden', clientCa: 5, requireClientCertificate: true }),
    )
    expect(wrong.join('\n')).not.toContain('requireClientCertificate')
  })

  it('may be a reference that does not resolve where the configuration is checked without secrets', () => {
    const text = tls('upstreams.harness.tls', { ca: '${file:/nope}', cert: '${file:/nope}', key: '${env:NOPE}' })
    const options = { env: { KEY: 'pat.AbCdEf.id.x' }, ignores: () => true }
    expect(() => parseConfig(text, options)).not.toThrow()
  })
})

describe('a reference that does not resolve, where that is no mistake', () => {
  const unresolved = { env: {}, ignores: () => true }

  it.each([
    ['in a list of methods', `${VALID}    routes: [{ path: /x, class: read, method: ["\${env:M}"] }]`],
    ['in a list of classes', `${VALID}    routes: [{ path: /x, class: read, charges: ["\${env:C}"] }]`],
    ['in a list of statuses', `${VALID}    throttle: { when: [{ status: [403, "\${env:S}"] }] }`],
    [
      'among the units by method',
      `${VALID}    limits: { read: [{ requests: 9, window: 1s, cost: { GET: "\${env:U}", POST: 2 } }] }`,
    ],
    ['for a port', `${VALID}server: { port: "\${env:PORT}" }\nadmin: { port: 8080 }`],
    ['for the admin port', `${VALID}admin: { port: "\${env:PORT}" }\nforwardProxy: { port: 9090 }`],
    ['in the path of a route', `${VALID}    routes: [{ path: "/x/\${env:P}", class: read, redact: [id] }]`],
    [
      'for the path of a route, whose segment a scope names',
      `${VALID}    routes: [{ path: "\${env:P}", class: read }]\n    limits: { read: [{ requests: 9, window: 1s, scope: "{shop}" }] }`,
    ],
  ])('is not blamed for anything %s', (_, text) => {
    expect(() => parseConfig(text, unresolved)).not.toThrow()
  })

  it.each(readdirSync(join(ROOT, 'deploy/examples')).filter((name) => name.endsWith('.yaml')))(
    'is blamed for nothing else, whatever value of %s it stands for or in',
    (name) => {
      const text = readFileSync(join(ROOT, 'deploy/examples', name), 'utf8')
      const scalars = (document: Document): Scalar[] => {
        const found: Scalar[] = []
        visit(document, { Scalar: (key, node) => void (key === 'key' || found.push(node)) })
        return found
      }
      for (const i of scalars(parseDocument(text)).keys()) {
        for (const start of ['', String(scalars(parseDocument(text))[i]!.value)]) {
          const document = parseDocument(text)
          const [scalar] = scalars(document).slice(i)
          scalar!.value = `${start}\${env:NOPE}`
          expect(() => parseConfig(String(document), unresolved), String(document)).not.toThrow()
        }
      }
    },
  )

  it.each([
    ['routes: [{ path: /x, class: read, method: ["${env:M}", 5] }]', 'method: must be an HTTP method in capitals'],
    ['accounts: { a: { id: x, credential: { type: oauth, clientSecret: "${env:S}" } } }', 'credential.type: must be'],
    ['routes: { a: "${env:R}" }', 'routes: must be a list'],
  ])('hides no mistake beside it: %s', (line, problem) => {
    const text = `upstreams:\n  u:\n    url: https://x\n    limits: { read: [] }\n    ${line}\n`
    expect(() => parseConfig(text, unresolved)).toThrow(problem)
  })
})

describe('a key that may be a secret', () => {
  const SECRET = 'pat.AbCdEf.id.topsecret'

  it.each([
    ['behind a known key', VALID.replace(/value: "[^"]*"/, `value:${SECRET}`), 'a space is missing behind "value:"'],
    ['behind another key', `${VALID}    nope: 1\nclients: { key:${SECRET} }`, 'a space is missing behind its ":"'],
    ['without a key', VALID.replace(/value: "[^"]*"/, `ghp_${'topsecret'.repeat(4)}`), 'more than 30 characters'],
    ['as a name', `upstreams: { url:${SECRET} }`, 'a space is missing behind its ":"'],
    [
      'of anything',
      `${VALID}clients: { a: { tokens: [{ issuer: x, claims: { sub:${SECRET} } }] } }`,
      'clients.a.tokens',
    ],
    ['that is given twice', `upstreams: { url:${SECRET}, url:${SECRET} }`, 'this key is given twice'],
  ])('is not shown: %s', (_, text, expected) => {
    const problems = problemsOf(text).join('\n')
    expect(problems).toContain(expected)
    expect(problems).not.toContain('topsecret')
  })
})

describe('one mistake', () => {
  it.each([
    [
      'in a credential',
      VALID.replace('{ value:', '{ valu:'),
      'credential.valu: unknown key "valu"; did you mean "value"?',
    ],
    [
      'in a limit',
      `${VALID}    limits: { read: [{ request: 5, window: 1s }] }`,
      'unknown key "request"; did you mean "req',
    ],
    [
      'of what an upstream needs',
      VALID.replace('accounts', 'acounts'),
      'unknown key "acounts"; did you mean "accounts"?',
    ],
    ['without a space', VALID.replace('{ value: ', '{ value:x').replace('"${env:KEY}"', ''), 'behind "value:"'],
    ['of all', VALID.replace('upstreams', 'upstream'), 'upstream: unknown key "upstream"; did you mean "upstreams"?'],
    [
      'in a list',
      `${VALID}    routes: [{ pth: /x, class: read }]`,
      'routes[0].pth: unknown key "pth"; did you mean "path"?',
    ],
  ])('in the name of a key is told once: %s', (_, text, expected) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(expected)])
  })

  it('below a name of digits has one path, whoever finds it', () => {
    const text = VALID.replace('prod: {', '123: {').replace('{ value:', '{ type: x, value:').replace('AbCdEf', '""')
    expect(problemsOf(text)).toEqual([
      expect.stringContaining('upstreams.harness.accounts.123.id: must not be an empty text'),
      expect.stringContaining('upstreams.harness.accounts.123.credential.type: must be one of'),
    ])
    expect(problemsOf(VALID.replace('prod: { id: AbCdEf', '123: { id: other'))).toEqual([
      expect.stringContaining('upstreams.harness.accounts.123.id: the credential belongs to another account'),
    ])
  })

  it.each([
    ['in the only item of a list', 'secret'],
    ['in a reference that is the only item of a list', '${env:NOPE}'],
  ])('%s is reported once', (_, key) => {
    expect(problemsOf(`${VALID}clients: { a: { keys: ["${key}"] } }`)).toHaveLength(1)
  })

  it('of a list is named by its own index and line, whatever else is wrong in the list', () => {
    const routes = (...items: string[]): string =>
      `${VALID}    routes:\n${items.map((item) => `      - ${item}\n`).join('')}`
    expect(
      problemsOf(routes('{ path: /a }', '{ path: /b, class: read }', '{ path: /c }', '{ path: /d, class: read }')),
    ).toEqual([
      'sluice.yaml:8:9: upstreams.harness.routes[0].class: the key "class" is missing',
      'sluice.yaml:10:9: upstreams.harness.routes[2].class: the key "class" is missing',
    ])
    const lacksTwo = ['{ method: GET }', '{ path: /b, class: read }', '{ path: /c, class: write }']
    expect(
      problemsOf(
        routes(...lacksTwo, '{ path: /d, class: raed }', '{ path: e, class: x }', '{ path: /f, class: wriet }'),
      ),
    ).toEqual([
      'sluice.yaml:8:9: upstreams.harness.routes[0].path: the key "path" is missing',
      'sluice.yaml:8:9: upstreams.harness.routes[0].class: the key "class" is missing',
      expect.stringContaining('sluice.yaml:11:28: upstreams.harness.routes[3].class: this class has no entry'),
      expect.stringContaining('sluice.yaml:12:17: upstreams.harness.routes[4].path: must be a path'),
      expect.stringContaining('sluice.yaml:13:28: upstreams.harness.routes[5].class: this class has no entry'),
    ])
  })

  it('of a list in a list is named by both indices', () => {
    const routes =
      '[{ path: /a }, { path: "/{x}", class: read, redact: [1, x, y] }, { class: read }, { path: /b, class: z }]'
    expect(problemsOf(`${VALID}    routes: ${routes}`).map((line) => line.split(': ')[1])).toEqual([
      'upstreams.harness.routes[0].class',
      'upstreams.harness.routes[1].redact[0]',
      'upstreams.harness.routes[1].redact[2]',
      'upstreams.harness.routes[2].path',
      'upstreams.harness.routes[3].class',
    ])
  })

  const clientWith = (scope: string): string =>
    `${VALID}clients: { a: { keys: ["sha256:${'1'.repeat(64)}"], ${scope} } }`
  const other = (text: string): string => `upstreams: { u: { url: "https://u", accounts: { main: {} }, ${text} } }`
  it.each([
    [
      'a type of credential',
      other('').replace(
        'main: {}',
        'main: { credential: { type: oauth, tokenUrl: "https://t", clientId: x, clientSecret: y } }',
      ),
    ],
    ['a kind of store', `${VALID}store: { kind: reddis, url: "redis://h", tls: {} }`],
    [
      'a kind of store, with the cache there',
      `${VALID}store: { kind: reddis, url: "redis://h" }\ncache: { store: redis }`,
    ],
    ['an amount', other('limits: { read: [{ amount: "-5", unit: usd, window: 1h }] }')],
    [
      'a currency',
      other(
        'limits: { read: [{ amount: 5, unit: "$", window: 1h }] }, price: { unit: usd, list: { default: { call: 1 } } }',
      ),
    ],
    [
      'a price',
      other(
        'limits: { read: [{ amount: 5, unit: usd, window: 1h }] }, price: { unit: usd, list: 5 }, routes: [{ path: /a, class: read, price: x }]',
      ),
    ],
    [
      'a preset, with classes of it',
      clientWith('classes: [read]').replace(
        'preset: harness',
        'preset: harnes\n    limitSet: published\n    concurrency: { read: 5 }\n    routes: [{ path: /a, class: read }]',
      ),
    ],
    ['limits of a class', other('limits: { mine: 5 }, routes: [{ path: /a, class: mine }], concurrency: { mine: 1 }')],
    [
      'an upstream',
      `${clientWith('upstreams: [b], accounts: [b/x]')}\ndefaultUpstream: b`.replace(
        'upstreams:',
        'upstreams:\n  b: 5',
      ),
    ],
    ['an admin token', `${VALID}admin: { host: 0.0.0.0, token: 123 }`],
    ['clients', `${VALID}server: { host: 0.0.0.0 }\nclients: 5`],
    ['a balancer', `${VALID}server: { proxyProtocol: true, trustedProxies: [x] }`],
    ['a team', `${clientWith('team: t')}\nteams: { t: 5 }`],
    ['a delay', `${VALID}    retry: { baseDelay: 90s, maxDelay: 2 min }`],
  ])('in %s is not blamed on what depends on it', (_, text) => {
    expect(problemsOf(text)).toHaveLength(1)
  })

  it('in a reference hides nothing that does not depend on its value', () => {
    const credential = '{ type: oauth2, tokenUrl: "https://t", clientId: x, clientSecret: "${env:NOPE}" }'
    const text = VALID.replace(/\{ id: .*/, `{ credential: ${credential} }`)
    const check = () => parseConfig(text, { env: {}, ignores: () => true })
    expect(check).toThrow('prod.id: the key "id" is missing, and the credential does not carry the account')
  })

  it('in a reference that an alias repeats is told once, where it stands', () => {
    const text = `
upstreams:
  a: { url: 'https://a.example', accounts: { main: {} }, limits: { read: [], write: [] }, tls: &t { ca: '\${file:/nowhere/ca.pem}' } }
  b: { url: 'https://b.example', accounts: { main: {} }, limits: { read: [], write: [] }, tls: *t }
server: { port: &p '\${env:NOPE}' }
metrics: { maxClients: *p }
`
    expect(() => parseConfig(text, { env: {}, ignores: () => true })).not.toThrow()
    expect(problemsOf(text)).toEqual([
      expect.stringContaining('upstreams.a.tls.ca: '),
      'sluice.yaml:5:20: server.port: the environment variable NOPE is not set',
    ])
    const port = parseConfig(text, { env: { NOPE: '8181' }, ignores: ([first]) => first === 'upstreams' })
    expect([port.server.port, port.metrics.maxClients]).toEqual([8181, 8181])
  })

  it('in a reference is told where it is ignored, if an alias repeats it where it is not', () => {
    const text = `${VALID}admin: { token: &t '\${env:NOPE}' }\nwebhooks: { ops: { url: *t } }`
    const parse = (ignored: readonly string[]) => () =>
      parseConfig(text, { env: { KEY: 'k' }, ignores: ([first]) => ignored.includes(String(first)) })
    expect(parse(['admin'])).toThrow('admin.token: the environment variable NOPE is not set')
    expect(parse(['admin', 'webhooks'])).not.toThrow()
  })

  it('in a preset hides nothing that does not depend on it', () => {
    const text = VALID.replace('preset: harness', 'preset: harnes\n    retry: { baseDelay: 90s }')
    expect(problemsOf(text).join()).toContain('retry.baseDelay: must not be longer than retry.maxDelay')
  })
})

describe('references in a configuration', () => {
  it('are replaced inside of scalars only: what they bring in is never parsed', () => {
    const value = 'x", admin: { token: y }, "'
    const config = parseConfig(VALID.replace('id: AbCdEf', 'id: "${env:ID}"'), { env: { KEY: 'k', ID: value } })
    expect(config.upstreams['harness']!.accounts['prod']!.id).toBe(value)
  })

  it('read files, relative to the configuration, without the line end', () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'key'), 'from-file\n')
    writeFileSync(join(folder, 'sluice.yaml'), VALID.replace('${env:KEY}', 'Token ${file:key}!'))
    const config = loadConfigFile(join(folder, 'sluice.yaml'))
    expect(config.upstreams['harness']!.accounts['prod']!.credential!.value!.reveal()).toBe('Token from-file!')
  })

  it('may stand for a number, or for true or false, where one is wanted', () => {
    const key = `"sha256:${'1'.repeat(64)}"`
    const of = (weight: string, watch: string) => ({
      text: `${VALID}server: { watch: "\${env:WATCH}" }\nclients: { a: { keys: [${key}], weight: "\${env:W}" } }`,
      env: { KEY: 'k', W: weight, WATCH: watch },
    })
    const { text, env } = of('0.5', 'false')
    const { clients, server } = parseConfig(text, { env })
    expect([clients!['a']!.weight, server.watch]).toEqual([0.5, false])
    expect(problemsOf(text, of('half', 'yes').env)).toEqual([
      expect.stringMatching(/server\.watch: must be true or false$/),
      expect.stringMatching(/clients\.a\.weight: must be a number$/),
    ])
  })

  it.each(['valueOf', 'toString', '__proto__'])('find no %s that the environment inherits', (name) => {
    for (const env of [{ KEY: 'k' }, { ...process.env, KEY: 'k' }])
      expect(problemsOf(VALID.replace('id: AbCdEf', `id: "\${env:${name}}"`), env)).toEqual([
        expect.stringContaining(`prod.id: the environment variable ${name} is not set`),
      ])
  })

  it.each([
    ['env:NOPE:-hidden', 'a reference has no default: leave out what stands behind the name'],
    ['file:/nope:-hidden', 'a reference has no default: leave out what stands behind the name'],
    ['vault:kv/nope#key:-hidden', 'a reference has no default: leave out what stands behind the name'],
    ['env:NOPE-hidden', 'the environment variable NOPE… is not set; a reference has no default'],
    ['env:NOPE:hidden', 'the environment variable NOPE… is not set; a reference has no default'],
  ])('show no default, which may be a secret: ${%s}', (reference, problem) => {
    const found = problemsOf(VALID.replace('id: AbCdEf', `id: "\${${reference}}"`))
    expect(found).toEqual([expect.stringMatching(new RegExp(`prod\\.id: ${problem}$`))])
  })

  it.each(['env:', 'file:', 'secret:', 'vault: '])('need a name: ${%s}', (reference) => {
    expect(problemsOf(VALID.replace('id: AbCdEf', `id: "\${${reference}}"`))).toEqual([
      expect.stringContaining('prod.id: a reference has no name behind its ":"; write ${env:NAME} or ${file:/path}'),
    ])
  })

  it('may stand for a port', () => {
    const config = parseConfig(`${VALID}server: { port: "\${env:PORT}" }`, { env: { KEY: 'k', PORT: '8181' } })
    expect(config.server.port).toBe(8181)
    expect(problemsOf(`${VALID}server: { port: "\${env:PORT}" }`, { KEY: 'k', PORT: '80a' })).toEqual([
      'sluice.yaml:7:17: server.port: must be a whole number',
    ])
  })

  it.each([
    ['${env:NOPE}', 'the environment variable NOPE is not set'],
    ['${env:EMPTY}', 'the environment variable EMPTY is empty'],
    ['Bearer ${env:EMPTY}', 'the environment variable EMPTY is empty'],
    ['Bearer ${env:BLANK}', 'the environment variable BLANK is empty'],
    ['Bearer ${file:/dev/null}', 'the file /dev/null is empty'],
    ['${file:/nope/key}', 'the file /nope/key does not exist'],
    ['${KEY}', 'names no source; write ${env:NAME} or ${file:/path}'],
    ['${safe:x}', 'unknown source; known are env, file, secret and vault'],
    ['${env:KEY', 'is not closed'],
  ])('that do not resolve are errors: %s', (reference, expected) => {
    const problems = problemsOf(VALID.replace('${env:KEY}', reference), { KEY: 'k', EMPTY: '', BLANK: ' \t' })
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(expected)
    expect(problems[0]).toMatch(/^sluice\.yaml:6:\d+: upstreams\.harness\.accounts\.prod\.credential\.value: /)
  })

  it('can be written literally', () => {
    const config = parseConfig(
      VALID.replace('${env:KEY}', () => '$${env:KEY}'),
      { env: {} },
    )
    expect(config.upstreams['harness']!.accounts['prod']!.credential!.value!.reveal()).toBe('${env:KEY}')
  })

  it.each([
    ['an upstream', 'defaultUpstream: "${env:S}"'],
    ['an address', 'server: { host: "${env:S}" }'],
    ['an admin address', 'admin: { host: "${env:S}" }'],
    ['host names', '    hosts: ["${env:S}", "${env:S}"]'],
    ['a class', '    routes: [{ path: /x, class: "${env:S}" }]'],
    ['a class charged', '    routes: [{ path: /x, class: read, charges: ["${env:S}"] }]'],
    ['a segment', '    routes: [{ path: /x, class: read, redact: ["${env:S}"] }]'],
    ['an account id', '      other: { id: "${env:S}", credential: { value: "${env:KEY}" } }'],
    ['a client’s account', `clients: { a: { keys: ["sha256:${'1'.repeat(64)}"], accounts: ["\${env:S}/x"] } }`],
    ['a client’s class', `clients: { a: { keys: ["sha256:${'1'.repeat(64)}"], classes: ["\${env:S}"] } }`],
    ['a method', '    routes: [{ path: /x, class: read, method: "${env:S}" }]'],
    ['one of few words', '    errors: "${env:S}"'],
    ['a set of limits', '    limitSet: "${env:S}"'],
    ['a class that is told by an answer', '    throttle: { when: [{ header: { x: y }, classes: ["${env:S}"] }] }'],
    ['a duration', '    queue: { maxWait: "${env:S}" }'],
    ['a broken reference', '    url: "${topsecret"'],
    ['a reference without a source', '    url: "${topsecret}"'],
    ['a reference with a wrong source', '    url: "${top:secret}"'],
  ])('that turn out wrong are not shown: %s', (_, line) => {
    const problems = problemsOf(VALID + line, { KEY: 'pat.AbCdEf.id.x', S: 'topsecret' })
    expect(problems).toHaveLength(1)
    expect(problems[0]).not.toMatch(/top:?secret/)
  })

  it('leave no trace of a secret in the loaded configuration as it is printed, nor in errors', () => {
    const config = parseConfig(VALID, { env: { KEY: 'pat.AbCdEf.id.topsecret' } })
    for (const printed of [
      JSON.stringify(config),
      inspect(config, { depth: null }),
      String(config.upstreams['harness']!.accounts['prod']!.credential!.value),
    ]) {
      expect(printed).not.toContain('topsecret')
    }
    const problems = problemsOf(`${VALID}    credentialHeader: "\${env:KEY}"\n    nope: "\${env:KEY}"`, {
      KEY: 'top secret',
    })
    expect(problems).toHaveLength(2)
    expect(problems.join('\n')).not.toContain('top secret')
  })
})
