import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics } from '../support/openmetrics.ts'
import { storyOf } from '../support/requests.ts'
import { boards, readBoard } from './boards.ts'
import { readText } from './repository.ts'

const datasource = parse(readText('deploy/grafana/provisioning/datasources/prometheus.yaml')) as {
  datasources: { jsonData: { exemplarTraceIdDestinations: { name: string; url: string }[] } }[]
}

/** A link as Grafana opens it: the admin port and the labels of what was clicked, escaped. */
function opened(url: string, adminUrl: string, values: Readonly<Record<string, string>> = {}): string {
  return url
    .replace(/^\$\{admin\}|^http:\/\/127\.0\.0\.1:9090/, adminUrl)
    .replaceAll('${__from:date:iso}', '2020-01-01T00:00:00.000Z')
    .replaceAll('${__to:date:iso}', '2100-01-01T00:00:00.000Z')
    .replaceAll(/\$\{([\w.]+):percentencode\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ''))
}

const LABELS = {
  upstream: 'harness',
  account: 'prod',
  class: 'read',
  client: 'anonymous',
  status: '200',
  outcome: 'delivered',
}

async function setUp() {
  const upstream = await startUpstream()
  const gateway = await startGateway(harnessConfig(upstream.url))
  const id = 'odd/id?of=a%20client'
  await call(gateway.url, '/harness/ng/api/projects', { headers: { 'x-correlation-id': id } })
  await storyOf(gateway.adminUrl, id)
  return { gateway, id }
}

describe('the links of the boards', () => {
  // Panels with the same links are tried once.
  const links = [
    ...new Map(
      boards.flatMap(({ panels }) =>
        panels.flatMap(({ title, fieldConfig }) =>
          (fieldConfig?.defaults.links ?? []).map(({ url }) => [url, { title, url }] as const),
        ),
      ),
    ).values(),
  ]

  it('lead to the admin port that its variable names', () => {
    expect(links.length).toBeGreaterThan(10)
    for (const board of boards) {
      expect(board.templating.list).toContainEqual(expect.objectContaining({ name: 'admin', type: 'textbox' }))
      expect(board.links.flatMap(({ url }) => url ?? [])).toEqual(['${admin}/'])
    }
    for (const { url } of links) expect(url.startsWith('${admin}/'), url).toBe(true)
  })

  it('lead from each board to the others, with the same time and choices', () => {
    for (const { links } of boards)
      expect(links).toContainEqual(
        expect.objectContaining({ type: 'dashboards', tags: ['sluice'], includeVars: true, keepTime: true }),
      )
    expect(new Set(boards.map(({ uid }) => uid)).size).toBe(boards.length)
  })

  it.each(links)('lead from $title to the requests that it is about', async ({ url }) => {
    const { gateway, id } = await setUp()
    const fields = Object.entries(LABELS).flatMap(([name, value]) => [
      [`__field.labels.${name}`, value],
      [`__data.fields.${name}`, value],
      [name, value],
    ])
    const answer = await fetch(opened(url, gateway.adminUrl, Object.fromEntries(fields) as Record<string, string>))
    expect(answer.status).toBe(200)
    expect(await answer.text()).toContain(`href="/requests/${encodeURIComponent(id)}"`)
    // A series without some of the labels, as the sum of a total.
    expect((await fetch(opened(url, gateway.adminUrl))).status).toBe(200)
  })

  it('lead from an exemplar, and from the text box, to the story of that call', async () => {
    const { gateway, id } = await setUp()
    const exemplar = parseMetrics(await gateway.metrics()).find(
      ({ name }) => name === 'sluice_requests_total',
    )?.exemplar
    expect(exemplar?.labels).toEqual({ correlation_id: id })
    const [destination] = datasource.datasources[0]!.jsonData.exemplarTraceIdDestinations
    expect(destination).toMatchObject({ name: 'correlation_id' })
    const { content = '' } = readBoard('on-call').panels.find(
      ({ title }) => title === 'Looking for one call?',
    )!.options!
    const [, inText = ''] = /\]\((\$\{admin\}[^)]*)\)/.exec(content) ?? []
    for (const url of [destination!.url.replaceAll('$$', '$'), inText]) {
      const values = { '__value.raw': id, call: id }
      const answer = await fetch(opened(url, gateway.adminUrl, values))
      expect(answer.status, url).toBe(200)
      expect(await answer.text()).toContain('odd/id?of=a%20client')
    }
  })
})
