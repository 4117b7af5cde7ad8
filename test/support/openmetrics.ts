/** One line of values, with the call that it has as an example. */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  readonly exemplar: { readonly labels: Readonly<Record<string, string>>; readonly value: number } | undefined
}

const LABEL = String.raw`[a-zA-Z_]\w*="(?:[^"\\]|\\["\\n])*"`
const LABELS = String.raw`\{(${LABEL}(?:,${LABEL})*)\}`
const NUMBER = String.raw`[-+]?(?:Inf|[Nn]an|[0-9.]+(?:e[-+]?\d+)?)`
const SAMPLE = new RegExp(`^([a-zA-Z_]\\w*)(?:${LABELS})? (${NUMBER})(?: # ${LABELS} (${NUMBER}) ${NUMBER})?$`)
const COMMENT = /^# (?:HELP \w+ .+|TYPE \w+ (?:counter|gauge|histogram|summary))$/

/** Reads metrics in the OpenMetrics format, and throws at the first line that is not of that format as we write it. */
export function parseMetrics(text: string): Sample[] {
  if (!text.endsWith('\n# EOF\n')) throw new Error(`the metrics have no end: ${text.slice(0, 300)}`)
  const lines = text.split('\n').slice(0, -2)
  return lines.filter((line) => !COMMENT.test(line)).map(parseSample)
}

/** The values of every series of a metric, by those of its labels that are named, in their order, with spaces between. */
export function valuesOf(samples: readonly Sample[], name: string, ...labels: string[]): Record<string, number> {
  const values: Record<string, number> = {}
  for (const sample of samples) {
    if (sample.name !== name) continue
    const key = labels.map((label) => sample.labels[label]).join(' ')
    values[key] = (values[key] ?? 0) + sample.value
  }
  return values
}

function parseSample(line: string): Sample {
  const [, name, labels = '', value, exemplarLabels, exemplarValue] = SAMPLE.exec(line) ?? []
  if (name === undefined) throw new Error(`this is no line of metrics: ${line}`)
  const exemplar =
    exemplarLabels === undefined ? undefined : { labels: parseLabels(exemplarLabels), value: Number(exemplarValue) }
  return { name, labels: parseLabels(labels), value: Number(value), exemplar }
}

function parseLabels(text: string): Record<string, string> {
  const labels = [...text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)]
  return Object.fromEntries(labels.map(([, name = '', value = '']) => [name, value.replace(/\\(.)/g, unescape)]))
}

function unescape(_: string, character: string): string {
  return character === 'n' ? '\n' : character
}
