/*
 * deploy/grafana/boards: the three Grafana boards, and what they are made of.
 * It imports nothing of the program. `npm run boards` writes deploy/grafana/*.json from it.
 * A change here must prove that every query has data in the fault that it is for (test/deploy/alerts-fired.test.ts, boards.test.ts).
 */

import type { Thresholds } from './thresholds.ts'

type Json = Readonly<Record<string, unknown>>

export interface Query {
  readonly expr: string
  readonly legend: string
  /** Shows the calls behind the values, with their correlation ids. */
  readonly exemplar?: boolean
}

/** A panel without its place: those of a board follow one another. */
export interface Panel {
  readonly w: number
  readonly h: number
  readonly json: Json
}

export interface Board {
  readonly uid: string
  readonly title: string
  readonly about: string
  readonly panels: readonly Panel[]
  /** Of one client instead of any number. */
  readonly isOfOneClient?: boolean
}

export const DATASOURCE = { type: 'prometheus', uid: '${datasource}' }

/** Selectors of the gateways that were chosen; of the accounts and classes; and of the client, too. */
export const GATEWAYS = 'job=~"$job",namespace=~"$namespace",instance=~"$instance"'
export const UPSTREAMS = `${GATEWAYS},upstream=~"$upstream"`
export const ACCOUNTS = `${UPSTREAMS},account=~"$account"`
export const CLASSES = `${ACCOUNTS},class=~"$class"`
export const CALLS = `${CLASSES},client=~"$client"`
/** Limits that hold calls back: those with `enforce: false` do not. */
export const LIMITS = `${CLASSES},window!~".* shadow"`
/** How calls end that the gateway does not refuse. */
export const NOT_REFUSED = 'delivered|client_gone|broken_off'

export function query(expr: string, legend = '', { exemplar = false } = {}): Query {
  return { expr, legend, ...(exemplar && { exemplar }) }
}

/** A link from a line, a bar or a row to the requests that it is about, by labels of it, or by a `$variable` of the board. */
function requestsOf(labels: readonly string[], from: '__field.labels' | '__data.fields'): Json[] {
  if (labels.length === 0) return []
  const chosen = labels.map((label) =>
    label.startsWith('$')
      ? `${label.slice(1)}=\${${label.slice(1)}:percentencode}`
      : `${label}=\${${from}.${label}:percentencode}`,
  )
  const url = `\${admin}/requests?${[...chosen, 'since=${__from:date:iso}', 'until=${__to:date:iso}'].join('&')}`
  return [{ title: 'Requests of it', url, targetBlank: true }]
}

/** The same panel on a board of one client: its links lead to the requests of that client. */
export function ofMyClient(panel: Panel): Panel {
  const links = JSON.stringify(panel.json).replaceAll('/requests?', '/requests?client=${client:percentencode}&')
  return { ...panel, json: JSON.parse(links) as Json }
}

function targets(queries: readonly Query[], isInstant: boolean, more: Json = {}): Json[] {
  return queries.map(({ expr, legend, exemplar }, i) => ({
    refId: String.fromCodePoint(65 + i),
    datasource: DATASOURCE,
    editorMode: 'code',
    expr,
    legendFormat: legend,
    range: !isInstant,
    ...(isInstant && { instant: true }),
    ...(exemplar && { exemplar }),
    ...more,
  }))
}

function steps(thresholds: Thresholds): Json {
  return { mode: 'absolute', steps: thresholds.map(([value, color]) => ({ value, color })) }
}

function named(values: readonly string[]): Json[] {
  const options = Object.fromEntries(values.map((text, index) => [index, { text, index }]))
  return values.length === 0 ? [] : [{ type: 'value', options }]
}

const LAST = { calcs: ['lastNotNull'], fields: '', values: false }

export interface StatOptions {
  readonly unit?: string
  readonly decimals?: number
  readonly noValue?: string
  readonly thresholds: Thresholds
  /** What the values 0, 1 … are called. */
  readonly names?: readonly string[]
  readonly w?: number
}

/** One number on a background that says whether it is well. */
export function stat(title: string, about: string, expr: string, options: StatOptions): Panel {
  const { unit = 'short', decimals, noValue, thresholds, names = [], w = 4 } = options
  const defaults = {
    unit,
    ...(decimals !== undefined && { decimals }),
    ...(noValue !== undefined && { noValue }),
    mappings: named(names),
    thresholds: steps(thresholds),
    color: { mode: 'thresholds' },
  }
  const json = {
    type: 'stat',
    title,
    description: about,
    datasource: DATASOURCE,
    targets: targets([query(expr)], true),
    fieldConfig: { defaults, overrides: [] },
    options: {
      reduceOptions: LAST,
      colorMode: 'background',
      graphMode: 'none',
      justifyMode: 'auto',
      orientation: 'auto',
      textMode: 'value',
      wideLayout: true,
    },
  }
  return { w, h: 4, json }
}

export interface GraphOptions {
  readonly unit?: string
  readonly max?: number
  /** Lines on top of one another, whose sum counts. */
  readonly stacked?: boolean
  readonly bars?: boolean
  /** Labels by which a line leads to the requests that it is about. */
  readonly leadsBy?: readonly string[]
  /** Fixed colours by the name in the legend. */
  readonly colors?: Readonly<Record<string, string>>
  /** What differs for one query, by its letter. */
  readonly overrides?: Readonly<Record<string, Json>>
  /** Drawn as lines across the graph. */
  readonly thresholds?: Thresholds
  readonly w?: number
}

/** Lines, or bars, over time. */
export function graph(title: string, about: string, queries: readonly Query[], options: GraphOptions = {}): Panel {
  const { unit = 'short', max, stacked = false, bars = false, leadsBy = [], thresholds, w = 8 } = options
  const { colors = {}, overrides = {} } = options
  const custom = {
    drawStyle: bars ? 'bars' : 'line',
    lineWidth: 1,
    fillOpacity: stacked ? 40 : 5,
    showPoints: 'never',
    spanNulls: false,
    stacking: { mode: stacked ? 'normal' : 'none', group: 'A' },
    ...(thresholds && { thresholdsStyle: { mode: 'line' } }),
  }
  const defaults = {
    unit,
    min: 0,
    ...(max !== undefined && { max }),
    color: { mode: 'palette-classic' },
    custom,
    mappings: [],
    ...(thresholds && { thresholds: steps(thresholds) }),
    links: requestsOf(leadsBy, '__field.labels'),
  }
  const json = {
    type: 'timeseries',
    title,
    description: about,
    datasource: DATASOURCE,
    targets: targets(queries, false),
    fieldConfig: { defaults, overrides: [...colored(colors), ...overridden(overrides)] },
    options: {
      legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
  }
  return { w, h: 8, json }
}

function colored(colors: Readonly<Record<string, string>>): Json[] {
  return Object.entries(colors).map(([name, fixedColor]) => ({
    matcher: { id: 'byName', options: name },
    properties: [{ id: 'color', value: { mode: 'fixed', fixedColor } }],
  }))
}

function overridden(overrides: Readonly<Record<string, Json>>): Json[] {
  return Object.entries(overrides).map(([letter, properties]) => ({
    matcher: { id: 'byFrameRefID', options: letter },
    properties: Object.entries(properties).map(([id, value]) => ({ id, value })),
  }))
}

/** Median, p95 and p99 of a histogram, with calls behind the p99 unless it is not about calls. */
export function quantiles(title: string, about: string, metric: string, selector: string, isOfCalls = true): Panel {
  const of = (quantile: number): string =>
    `histogram_quantile(${quantile}, sum by (le) (rate(${metric}_bucket{${selector}}[$__rate_interval])))`
  const queries = [query(of(0.5), 'p50'), query(of(0.95), 'p95'), query(of(0.99), 'p99', { exemplar: isOfCalls })]
  return graph(title, about, queries, { unit: 's' })
}

export interface BarOptions {
  readonly unit?: string
  readonly max?: number
  readonly decimals?: number
  readonly thresholds: Thresholds
  readonly leadsBy?: readonly string[]
}

/** What is so now, as one bar for each series. */
export function bars(title: string, about: string, one: Query, options: BarOptions): Panel {
  const { unit = 'short', max, decimals = 0, thresholds, leadsBy = [] } = options
  const defaults = {
    unit,
    min: 0,
    ...(max !== undefined && { max }),
    decimals,
    mappings: [],
    thresholds: steps(thresholds),
    color: { mode: 'thresholds' },
    links: requestsOf(leadsBy, '__field.labels'),
  }
  const json = {
    type: 'bargauge',
    title,
    description: about,
    datasource: DATASOURCE,
    targets: targets([one], true),
    fieldConfig: { defaults, overrides: [] },
    options: {
      displayMode: 'basic',
      orientation: 'horizontal',
      showUnfilled: true,
      valueMode: 'color',
      namePlacement: 'auto',
      sizing: 'auto',
      minVizHeight: 16,
      minVizWidth: 8,
      reduceOptions: LAST,
    },
  }
  return { w: 8, h: 8, json }
}

/** States over time, by colour; `names` are those of the values 0, 1 … */
export function timeline(
  title: string,
  about: string,
  one: Query,
  { names, thresholds }: { names: readonly string[]; thresholds: Thresholds },
): Panel {
  const defaults = {
    custom: { fillOpacity: 80, lineWidth: 0 },
    color: { mode: 'thresholds' },
    thresholds: steps(thresholds),
    mappings: named(names),
  }
  const json = {
    type: 'state-timeline',
    title,
    description: about,
    datasource: DATASOURCE,
    targets: targets([one], false),
    fieldConfig: { defaults, overrides: [] },
    options: {
      mergeValues: true,
      showValue: 'auto',
      alignValue: 'left',
      rowHeight: 0.8,
      legend: { displayMode: 'list', placement: 'bottom', showLegend: false },
      tooltip: { mode: 'single', sort: 'none' },
    },
  }
  return { w: 8, h: 8, json }
}

export interface TableOptions {
  /** What the column of the values is called; without it there is none. */
  readonly value?: string
  readonly hidden?: readonly string[]
  readonly order?: readonly string[]
  readonly leadsBy?: readonly string[]
  readonly h?: number
}

/** What is so now, as one row for each series. A row leads to the requests that it is about. */
export function table(title: string, about: string, expr: string, options: TableOptions = {}): Panel {
  const { value, hidden = [], order = [], leadsBy = [], h = 8 } = options
  const excluded = ['Time', '__name__', ...(value === undefined ? ['Value'] : []), ...hidden]
  const organize = {
    excludeByName: Object.fromEntries(excluded.map((name) => [name, true])),
    indexByName: Object.fromEntries(order.map((name, i) => [name, i])),
    renameByName: value === undefined ? {} : { Value: value },
  }
  const json = {
    type: 'table',
    title,
    description: about,
    datasource: DATASOURCE,
    targets: targets([query(expr)], true, { format: 'table' }),
    fieldConfig: {
      defaults: { noValue: 'none', custom: { align: 'auto' }, links: requestsOf(leadsBy, '__data.fields') },
      overrides: [],
    },
    options: { showHeader: true, cellHeight: 'sm' },
    transformations: [{ id: 'organize', options: organize }],
  }
  return { w: 8, h, json }
}

export function text(title: string, content: string): Panel {
  const json = { type: 'text', title, transparent: true, options: { mode: 'markdown', content } }
  return { w: 24, h: 3, json }
}

/** Begins a new part of the board, and a new line. */
export function heading(title: string): Panel {
  return { w: 24, h: 1, json: { type: 'row', title, collapsed: false, panels: [] } }
}
