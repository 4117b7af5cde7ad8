import { type Board, DATASOURCE, GATEWAYS, type Panel, UPSTREAMS } from './parts.ts'

type Json = Readonly<Record<string, unknown>>

const COLUMNS = 24

/** The whole dashboard, as Grafana imports it. */
export function dashboard({ uid, title, about, panels, isOfOneClient = false }: Board): Json {
  return {
    uid,
    title,
    description: about,
    tags: ['sluice'],
    schemaVersion: 41,
    version: 1,
    editable: true,
    graphTooltip: 1,
    timezone: 'browser',
    refresh: '10s',
    time: { from: 'now-1h', to: 'now' },
    fiscalYearStartMonth: 0,
    liveNow: false,
    links: [
      {
        title: 'What is wrong now',
        type: 'link',
        url: '${admin}/',
        icon: 'external link',
        targetBlank: true,
        tooltip: 'The live page of the gateway’s admin port',
        tags: [],
        asDropdown: false,
        includeVars: false,
        keepTime: false,
      },
      // The other boards, with the same time and the same choices.
      { title: 'Boards', type: 'dashboards', tags: ['sluice'], asDropdown: false, includeVars: true, keepTime: true },
    ],
    annotations: { list: annotations() },
    templating: { list: variables(isOfOneClient) },
    panels: placed(panels),
  }
}

/** Puts each panel into the first place, line by line, that is wide and high enough, below the heading before it. */
function placed(panels: readonly Panel[]): Json[] {
  const taken = new Set<string>()
  let top = 0
  let bottom = 0
  return panels.map(({ w, h, json }, i) => {
    if (json['type'] === 'row') top = bottom
    const cells = (x: number, y: number): string[] =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)},${y + Math.floor(cell / w)}`)
    let [x, y] = [0, top]
    while (cells(x, y).some((cell) => taken.has(cell))) {
      x++
      if (x + w > COLUMNS) [x, y] = [0, y + 1]
    }
    for (const cell of cells(x, y)) taken.add(cell)
    bottom = Math.max(bottom, y + h)
    if (json['type'] === 'row') top = bottom
    return { id: i + 1, gridPos: { h, w, x, y }, ...json }
  })
}

/** What happened, as marks on every graph. */
function annotations(): Json[] {
  return [
    {
      builtIn: 1,
      datasource: { type: 'grafana', uid: '-- Grafana --' },
      enable: true,
      hide: true,
      iconColor: 'rgba(0, 211, 255, 1)',
      name: 'Annotations & Alerts',
      type: 'dashboard',
    },
    mark(
      'Alerts',
      'red',
      'ALERTS{alertname=~"Sluice.+",alertstate="firing"}',
      '{{alertname}}',
      '{{upstream}} {{account}} {{class}}',
    ),
    mark(
      'Reloads',
      'blue',
      `increase(sluice_config_reload_total{${GATEWAYS},result!="unchanged"}[1m]) > 0`,
      'Configuration {{result}}',
      '{{instance}}',
    ),
    mark('Restarts', 'purple', `changes(sluice_start_time_seconds{${GATEWAYS}}[1m]) > 0`, 'Restarted', '{{instance}}'),
    mark(
      'Breakers opened',
      'orange',
      `max by (upstream, group) (sluice_breaker_state{${UPSTREAMS}}) == 2`,
      'Breaker open',
      '{{upstream}} {{group}}',
    ),
  ]
}

function mark(name: string, iconColor: string, expr: string, titleFormat: string, textFormat: string): Json {
  return {
    datasource: DATASOURCE,
    enable: true,
    hide: false,
    iconColor,
    name,
    expr,
    titleFormat,
    textFormat,
    step: '15s',
    useValueForTime: false,
  }
}

const ALL = { multi: true, includeAll: true, allValue: '.*', current: { text: ['All'], value: ['$__all'] } }
const ONE = { multi: false, includeAll: false, current: {} }

function variables(isOfOneClient: boolean): Json[] {
  const client = isOfOneClient ? choice('client', 'My client', requests(UPSTREAMS, 'client'), ONE) : undefined
  return [
    {
      name: 'datasource',
      label: 'Data source',
      type: 'datasource',
      query: 'prometheus',
      regex: '',
      refresh: 1,
      multi: false,
      includeAll: false,
      current: {},
      options: [],
      hide: 0,
      skipUrlSync: false,
    },
    ...(client === undefined ? [] : [client]),
    choice('job', 'Job', 'label_values(sluice_build_info, job)'),
    choice('namespace', 'Namespace', 'label_values(sluice_build_info{job=~"$job"}, namespace)'),
    choice('instance', 'Gateway', 'label_values(sluice_build_info{job=~"$job",namespace=~"$namespace"}, instance)'),
    choice('upstream', 'Upstream', requests(GATEWAYS, 'upstream')),
    choice('account', 'Account', requests(UPSTREAMS, 'account')),
    choice('class', 'Class', requests(UPSTREAMS, 'class')),
    ...(client === undefined ? [choice('client', 'Client (of calls and units)', requests(UPSTREAMS, 'client'))] : []),
    typed('call', 'Correlation id', ''),
    {
      ...typed('admin', 'Admin port', 'http://127.0.0.1:9090'),
      description: 'Base URL of the admin port of any gateway, as your browser reaches it. Links lead there.',
    },
  ]
}

function requests(selector: string, label: string): string {
  return `label_values(sluice_requests_total{${selector}}, ${label})`
}

function choice(name: string, label: string, query: string, how: Json = ALL): Json {
  return {
    name,
    label,
    type: 'query',
    datasource: DATASOURCE,
    query: { query, refId: `variable-${name}` },
    definition: query,
    refresh: 2,
    sort: 1,
    regex: '',
    options: [],
    hide: 0,
    skipUrlSync: false,
    ...how,
  }
}

function typed(name: string, label: string, value: string): Json {
  const options = value === '' ? [] : [{ text: value, value, selected: true }]
  const current = { text: value, value }
  return { name, label, type: 'textbox', query: value, current, options, hide: 0, skipUrlSync: false }
}
