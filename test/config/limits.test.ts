import { describe, expect, it } from 'vitest'
import { checkConfig, parseConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/config/problem.ts'
import { warningsOf } from '../../src/config/warnings.ts'

/** The lines of the error of an upstream with this in its class `read`, or with these fields. */
function problemsOf(limits: string, rest = ''): string[] {
  const text = `upstreams:
  it:
    url: https://x.example
    accounts: { main: {} }
    routes: [{ path: '/a/{id}', class: read, cost: 7 }, { path: /*, class: read }]
    limits:
      read: [${limits}]
${rest}`
  try {
    parseConfig(text, { source: 'c' })
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n').map((line) => line.replace('upstreams.it.', ''))
    throw error
  }
  return []
}

describe('limits in a configuration', () => {
  it.each([
    '{ requests: 5, window: 100ms }, { requests: 5, window: 24h, kind: calendar }, { concurrent: 3 }',
    '{ requests: 5, window: 1s }, { requests: 5, window: 1s, kind: calendar }, { requests: 5, window: 1s, name: b }',
    '{ requests: 5, window: 1s, scope: route }, { requests: 5, window: 1s, scope: [client, route] }',
    '{ requests: 9, window: 1s, cost: route }, { requests: 9, window: 1s, cost: { bytes: 1000 } }',
    '{ requests: 9, window: 1s, cost: { GET: 1, default: 5 } }, { requests: 9, window: 2s, cost: { PUT: 0 } }',
    '{ requests: 5, window: 1s, when: { bodyOver: 0 }, headroom: 10%, enforce: false, scope: "{id}" }',
    '{ requests: 9, window: 1s, scope: "/messages/*/role", cost: { reserve: { values: { n: { body: "/*a/**" } }, most: 9 } } }',
    '{ requests: 5, window: month }, { requests: 5, window: month, timezone: Europe/Berlin, anchor: 31 }',
    '{ requests: 5, window: week, anchor: sunday, timezone: Africa/Cairo }, { requests: 5, window: hour }',
    '{ requests: 5, window: day, anchor: 23, kind: calendar }, { requests: 5, window: day, anchor: 0, timezone: UTC }',
    '{ requests: 50, window: 1s, pace: even }, { requests: 500, window: 60s, pace: even, burst: 20, kind: calendar }',
  ])('can be %s', (limits) => {
    expect(problemsOf(limits)).toEqual([])
  })

  it.each([
    ['{ requests: 5 }', 'c:7:14: limits.read[0].window: the key "window" is missing'],
    ['{ window: 1s }', 'c:7:14: limits.read[0].requests: the key "requests" is missing'],
    ['{}', 'c:7:14: limits.read[0]: needs requests and window, or concurrent'],
    [
      '{ concurrent: 5, requests: 5, window: 1s }',
      'c:7:41: limits.read[0].requests: requests does not go with concurrent, which counts calls in flight; write two limits',
    ],
    ['{ requests: 5, window: 50ms }', 'c:7:37: limits.read[0].window: must be from 100ms to 24h'],
    ['{ requests: 5, window: 25h }', 'c:7:37: limits.read[0].window: must be from 100ms to 24h'],
    ['{ requests: 5, window: 25h }', ', or month, week, day or hour'],
    [
      '{ requests: 5, window: 30d }',
      'c:7:37: limits.read[0].window: must be a duration such as 30s, 5m or 24h, or month, week, day or hour',
    ],
    ['{ requests: 5, window: monthly }', 'or month, week, day or hour'],
    [
      '{ requests: 5, window: month, timezone: Europe/Berln }',
      'c:7:54: limits.read[0].timezone: is no time zone of the IANA database; did you mean "Europe/Berlin"?',
    ],
    ['{ requests: 5, window: month, timezone: europe/berlin }', 'did you mean "Europe/Berlin"?'],
    ['{ requests: 5, window: day, timezone: "+02:00" }', 'is no time zone of the IANA database, such as Europe/Berlin'],
    [
      '{ requests: 5, window: 24h, timezone: Europe/Berlin }',
      'c:7:52: limits.read[0].timezone: belongs to a window of the calendar: write window: day',
    ],
    ['{ requests: 5, window: 1h, anchor: 3 }', 'anchor: belongs to a window of the calendar: write window: hour'],
    [
      '{ requests: 5, window: month, anchor: 32 }',
      'c:7:52: limits.read[0].anchor: with window: month it is the day of the month: a number from 1 to 31',
    ],
    ['{ requests: 5, window: month, anchor: monday }', 'with window: month it is the day of the month'],
    ['{ requests: 5, window: week, anchor: 1 }', 'with window: week it is the first day: one of monday, tuesday'],
    ['{ requests: 5, window: day, anchor: 24 }', 'with window: day it is the hour: a number from 0 to 23'],
    ['{ requests: 5, window: day, anchor: 1.5 }', 'limits.read[0].anchor: must be a day of the month (1 to 31)'],
    ['{ requests: 5, window: hour, anchor: 30 }', 'with window: hour there is none, because it begins'],
    [
      '{ requests: 5, window: month, kind: rolling }',
      'a month has no length of its own, so it can not be rolling: write a duration such as 24h',
    ],
    ['{ requests: 5, window: month, pace: even }', 'limits.read[0].pace: does not go with the window month'],
    ['{ concurrent: 5, timezone: UTC }', 'limits.read[0].timezone: timezone does not go with concurrent'],
    ['{ requests: 0, window: 1s }', 'c:7:26: limits.read[0].requests: must be at least 1'],
    ['{ requests: 5, window: 1s, kind: fixed }', 'c:7:47: limits.read[0].kind: must be one of rolling, calendar'],
    ['{ requests: 5, window: 1s, pace: odd }', 'limits.read[0].pace: must be'],
    ['{ requests: 5, window: 1s, burst: 2 }', 'limits.read[0].burst: belongs to pace: even'],
    ['{ requests: 5, window: 1s, pace: even, burst: 0 }', 'limits.read[0].burst: must be at least 1'],
    [
      '{ requests: 5, window: 1s, pace: even, burst: 6 }',
      'is more than the 5 units that 1s has, so nothing would be paced',
    ],
    ['{ concurrent: 5, pace: even }', 'limits.read[0].pace: pace does not go with concurrent'],
    ['{ requests: 5, window: 1s, costs: 2 }', 'unknown key "costs"; did you mean "cost"?'],
    [
      '{ requests: 5, window: 1s, cost: { get: 1 } }',
      'c:7:41: limits.read[0].cost: must be a whole number, `route`, `{ bytes: 1000 }`, `{ response, reserve }`, `{ reserve }`, or units by method such as `{ GET: 1, default: 5 }`',
    ],
    ['{ requests: 5, window: 1s, cost: { bytes: 0 } }', 'c:7:56: limits.read[0].cost.bytes: must be at least 1'],
    [
      '{ requests: 5, window: 1s, cost: { bytes: 9, byte: 1 } }',
      'cost.byte: unknown key "byte"; did you mean "bytes"?',
    ],
    ['{ requests: 5, window: 1s, cost: { response: {}, reserve: -1 } }', 'limits.read[0].cost.reserve: must be'],
    ['{ requests: 5, window: 1s, cost: { response: { json: 5 } } }', 'cost.reserve: the key "reserve" is missing'],
    ['{ requests: 5, window: 1s, cost: [1] }', 'limits.read[0].cost: must be a whole number, `route`'],
    [
      '{ requests: 5, window: 1s, scope: rout }',
      'c:7:48: limits.read[0].scope: must be account, credential, upstream, route, client, a "{name}" of the routes’ paths, a JSON pointer such as /model, or a list of these',
    ],
    ['{ requests: 5, window: 1s, scope: [account, upstream] }', 'only one of account, credential and upstream'],
    ['{ requests: 5, window: 1s, scope: [route, route] }', 'scope: names something twice'],
    ['{ requests: 5, window: 1s, scope: "{ids}" }', 'scope: no route has a segment {ids}'],
    [
      '{ requests: 5, window: 1s }, { requests: 6, window: 1s }',
      'limits.read[1].window: another limit has the same window',
    ],
    ['{ concurrent: 5 }, { concurrent: 6 }', 'limits.read[1]: another limit is about calls at once'],
    ['{ requests: 5, window: 1s, cost: 6 }', 'cost: every call would cost more than the 5 units that 1s has'],
    ['{ requests: 9, window: 1s, headroom: 50%, cost: 5 }', 'cost: every call would cost more than the 4 units'],
    ['{ requests: 5, window: 1s, cost: { PUT: 6 } }', 'cost.PUT: is more than the 5 units that 1s has'],
    [
      '{ requests: 9, window: 1s, enforce: false, cost: { POTS: 5, default: 1 } }',
      'limits.read[0].cost.POTS: is no HTTP method, nor `default`; did you mean "POST"?',
    ],
    [
      '{ requests: 5, window: 1s, cost: route }',
      'c:5:52: routes[0].cost: is more than the 5 units that 1s of the read limit has',
    ],
    ['{ requests: 5, window: 1s, headroom: 100% }', 'headroom: the headroom leaves nothing of the limit'],
    ['{ requests: 5, window: 1s, when: { bodySize: 3 } }', 'when.bodySize: unknown key "bodySize"'],
  ])('can not be %s', (limits, expected) => {
    const problems = problemsOf(limits)
    expect(problems.join('\n')).toContain(expected)
  })

  it('can have a limit under which no call would fit, if it only counts', () => {
    expect(problemsOf('{ requests: 5, window: 1s, cost: 6, enforce: false }')).toEqual([])
  })

  it('know what can never be reached, and what no preset has', () => {
    expect(problemsOf('{ requests: 5, window: 1s, when: { bodyOver: 100 } }', '    maxBody: 100')).toEqual([
      'c:7:59: limits.read[0].when.bodyOver: is never reached: maxBody lets no more than 100 bytes through',
    ])
    expect(problemsOf('', '    limitSet: published')).toEqual([
      'c:8:15: limitSet: only a preset with several sets of limits has one to choose',
    ])
    expect(problemsOf('', '    preset: jira\n    limitSet: token')[0]).toContain(
      'there is no such set; known here: api-token',
    )
  })

  it('tell of the cost of a route that is charged to none of them', () => {
    const warningsFor = (limits: object, route: object): string[] =>
      warningsOf(
        checkConfig(
          {
            upstreams: {
              it: {
                url: 'https://x.example',
                accounts: { main: {} },
                limits: { read: [], write: [], other: [], ...limits },
                routes: [
                  { path: '/a', class: 'read' },
                  { path: '/b', class: 'read', cost: 7, ...route },
                ],
              },
            },
          },
          'test',
        ),
      )
    const limit = { requests: 9, window: '1s' }
    const warning = 'upstreams.it.routes[1].cost does nothing: no limit that it is charged to has cost: route'
    expect(warningsFor({ read: [limit] }, {})).toEqual([warning])
    const byRoute = [limit, { ...limit, window: '2s', cost: 'route' }]
    expect(warningsFor({ read: byRoute }, {})).toEqual([])
    expect(warningsFor({ all: byRoute }, {})).toEqual([])
    expect(warningsFor({ read: byRoute }, { charges: ['other'] })).toEqual([warning])
    expect(warningsFor({ other: byRoute }, { charges: ['other'] })).toEqual([])
  })

  it('have a class "all" that no route and no client is of', () => {
    const all = "    limitSet: default\n    preset: harness\nclients: { a: { keys: ['sha256:KEY'], classes: [all] } }"
    expect(problemsOf('', all.replace('KEY', '0'.repeat(64))).join('\n')).toContain('there is no such class')
    const text = `upstreams:
  it:
    url: https://x.example
    accounts: { main: {} }
    limits: { all: [], read: [] }
    routes: [{ path: /*, class: all }]`
    expect(() => parseConfig(text)).toThrow('"all" is no class of calls: its limits are charged by every call')
  })
})
