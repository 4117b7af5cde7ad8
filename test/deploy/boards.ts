import { readText } from './repository.ts'

export interface Target {
  readonly refId: string
  readonly expr: string
  readonly exemplar?: boolean
  readonly instant?: boolean
}

export interface Link {
  readonly title: string
  readonly url: string
}

export interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly Target[]
  readonly options?: { readonly content?: string }
  readonly fieldConfig?: { readonly defaults: { readonly links?: readonly Link[] } }
}

export interface Variable {
  readonly name: string
  readonly type: string
  readonly query: string | { readonly query: string }
  readonly multi?: boolean
  readonly allValue?: string
}

export interface Annotation {
  readonly name: string
  readonly expr?: string
}

export interface Board {
  readonly uid: string
  readonly title: string
  readonly links: readonly (Partial<Link> & { readonly type: string })[]
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly Variable[] }
  readonly annotations: { readonly list: readonly Annotation[] }
}

export const BOARDS = ['on-call', 'platform', 'my-client'] as const

export function readBoard(name: (typeof BOARDS)[number]): Board {
  return JSON.parse(readText(`deploy/grafana/${name}.json`)) as Board
}

export const boards = BOARDS.map((name) => Object.assign(readBoard(name), { name }))

/** Every query of the boards, with the panel that it is for. */
export const boardQueries = boards.flatMap(({ name, panels }) =>
  panels.flatMap(({ title, targets = [] }) => targets.map((target) => ({ board: name, panel: title, target }))),
)

/** What Grafana sends with these variables, and all others at "All". On a busy machine some scrapes of a minute may fail. */
export function interpolate(expr: string, variables: Readonly<Record<string, string>> = {}): string {
  return expr
    .replaceAll('$__rate_interval', '60s')
    .replaceAll('$__range', '5m')
    .replaceAll(/\$(job|namespace|instance|upstream|account|class|client)\b/g, (_, name: string) => {
      return variables[name] ?? '.*'
    })
}

/** A query variable `label_values(series, label)`, apart. */
export function labelValues(variable: Variable): { series: string; label: string } {
  const query = typeof variable.query === 'string' ? variable.query : variable.query.query
  const [, series, label] = /^label_values\((.*), (\w+)\)$/.exec(query) ?? []
  if (series === undefined || label === undefined) throw new Error(`${variable.name} is no label_values()`)
  return { series, label }
}
