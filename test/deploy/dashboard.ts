import { readText } from './repository.ts'

export interface Target {
  readonly refId: string
  readonly expr: string
  readonly exemplar?: boolean
  readonly instant?: boolean
}

export interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly Target[]
}

export interface Variable {
  readonly name: string
  readonly type: string
  readonly query: string | { readonly query: string }
  readonly multi?: boolean
  readonly allValue?: string
}

export interface Dashboard {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly Variable[] }
  readonly annotations: { readonly list: readonly { readonly expr?: string }[] }
}

export function readDashboard(): Dashboard {
  return JSON.parse(readText('deploy/grafana/sluice.json')) as Dashboard
}

/** Every query of the dashboard, with the panel that it is for. */
export function dashboardQueries(): { panel: string; target: Target }[] {
  return readDashboard().panels.flatMap(({ title, targets = [] }) =>
    targets.map((target) => ({ panel: title, target })),
  )
}

/** What Grafana sends when every variable is at "All". */
export function interpolate(expr: string): string {
  return expr
    .replaceAll('$__rate_interval', '1m')
    .replaceAll('$__range', '5m')
    .replaceAll(/\$(?:job|namespace|instance|upstream|account|class|client)\b/g, '.*')
}

/** A query variable `label_values(series, label)`, apart. */
export function labelValues(variable: Variable): { series: string; label: string } {
  const query = typeof variable.query === 'string' ? variable.query : variable.query.query
  const [, series, label] = /^label_values\((.*), (\w+)\)$/.exec(query) ?? []
  if (series === undefined || label === undefined) throw new Error(`${variable.name} is no label_values()`)
  return { series, label }
}
