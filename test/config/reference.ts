/** What this reads of a JSON Schema. */
export interface Schema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly patternProperties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
}

const HEAD = `# Configuration reference

Every field of \`sluice.yaml\`, made from the schema by \`node test/config/write-reference.ts\`. [Configure](configure.md) explains how they work together.
\`NAME\` stands for a name of your own. A value may also be a reference such as \`\${env:PORT}\`.
`

/** The Markdown page that describes every field of the configuration: a heading for each object, a table of its fields below it. */
export function referenceOf(schema: Schema): string {
  const sections: string[] = []
  /** By what an object holds: where that is described already. */
  const described = new Map<string, string>()
  const section = (object: Schema, path: string, mark: string): void => {
    const text = JSON.stringify(object.properties)
    described.set(text, path)
    const required = new Set(object.required)
    const inner: [Schema, string][] = []
    const rows = Object.entries(object.properties ?? {}).map(([name, field]) => {
      const nested = objectsIn(field, name)
      for (const [found, at] of nested) inner.push([found, path === '' ? at : `${path}.${at}`])
      const isNeeded = required.has(name) ? ' Required.' : ''
      return `| \`${name}\` | ${typeOf(field)} | ${defaultOf(field)} | ${cell(`${descriptionOf(field)}${isNeeded}`)} |`
    })
    const about = path === '' || object.description === undefined ? '' : `${object.description}\n\n`
    const title = path === '' ? 'Top level' : `\`${path}\`${mark}`
    sections.push(
      `## ${title}\n\n${about}| field | type | default | what it says |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`,
    )
    for (const [found, at] of inner) {
      const known = described.get(JSON.stringify(found.properties))
      if (known === undefined) section(found, at, markOf(found, at, inner))
      else sections.push(`## \`${at}\`\n\nThe fields of \`${known}\`.\n`)
    }
  }
  section(schema, '', '')
  return `${HEAD}\n${sections.join('\n')}`
}

/** Tells an object from the alternatives to it, which stand at the same path, by a field that only it has. */
function markOf(object: Schema, path: string, all: readonly [Schema, string][]): string {
  const others = all.filter(([other, at]) => at === path && other !== object).map(([other]) => other.properties ?? {})
  if (others.length === 0) return ''
  const own = Object.keys(object.properties ?? {}).find((name) => others.every((other) => !(name in other)))
  return own === undefined ? '' : `, with \`${own}\``
}

/** The objects with fields of their own that a field holds, each with the path to it from the field's object. */
function objectsIn(field: Schema, path: string): [Schema, string][] {
  if (field.properties !== undefined) return [[field, path]]
  const inner: [Schema, string][] = (field.anyOf ?? []).flatMap((one) => objectsIn(one, path))
  if (field.items !== undefined) inner.push(...objectsIn(field.items, `${path}[]`))
  const named = Object.values(field.patternProperties ?? {})
  if (typeof field.additionalProperties === 'object') named.push(field.additionalProperties)
  for (const one of named) inner.push(...objectsIn(one, `${path}.NAME`))
  return inner
}

function alternativesOf({ anyOf }: Schema): readonly Schema[] {
  return (anyOf ?? []).filter(({ pattern }) => pattern?.includes(String.raw`\$\{`) !== true)
}

function typeOf(field: Schema): string {
  const alternatives = alternativesOf(field)
  if (alternatives.length > 0) return [...new Set(alternatives.map(typeOf))].join(' or ')
  if (field.enum !== undefined) return field.enum.map((one) => `\`${String(one)}\``).join(', ')
  switch (field.type) {
    case 'array':
      return `list of ${field.items === undefined ? 'values' : typeOf(field.items)}`
    case 'object':
      return field.properties === undefined ? 'values by name' : 'object'
    case 'string':
      if (field.pattern?.startsWith(String.raw`^(\d+(ms|s|m|h)|`) === true) return 'duration or unit of the calendar'
      return field.pattern === String.raw`^\d+(ms|s|m|h)$` ? 'duration' : 'text'
    case 'boolean':
      return '`true`, `false`'
    case 'integer':
      return `number${rangeOf(field)}`
    default:
      return field.type ?? 'any value'
  }
}

function rangeOf({ minimum, maximum }: Schema): string {
  if (minimum === undefined) return ''
  return maximum === undefined ? ` from ${minimum}` : ` from ${minimum} to ${maximum}`
}

function defaultOf(field: Schema): string {
  const found = [field, ...alternativesOf(field)].find((one) => one.default !== undefined)?.default
  if (found === undefined || JSON.stringify(found) === '{}' || JSON.stringify(found) === '[]') return ''
  return `\`${typeof found === 'string' ? found : JSON.stringify(found)}\``
}

function descriptionOf(field: Schema): string {
  return [field, ...alternativesOf(field)].find(({ description }) => description !== undefined)?.description ?? ''
}

function cell(text: string): string {
  return text
    .trim()
    .replaceAll('|', String.raw`\|`)
    .replaceAll(/\s*\n\s*/g, ' ')
}
