import { closestMatch } from 'leven'
import { Value } from 'typebox/value'
import { type Document, isMap, isScalar, isSeq, type LineCounter, type Node } from 'yaml'
import { ConfigSchema } from '../schema/schema.ts'

export type Path = (string | number)[]

/** One problem of a configuration, and its place. Lines and columns count from 1. */
export interface Problem {
  readonly path: Path
  readonly message: string
  readonly line?: number
  readonly column?: number
}

/** Takes note of a problem. */
export type Report = (path: Path, message: string) => void

export class ConfigError extends Error {
  readonly source: string
  readonly problems: readonly Problem[]

  constructor(source: string, problems: readonly Problem[]) {
    super(problems.map((problem) => describe(source, problem)).join('\n'))
    this.name = 'ConfigError'
    this.source = source
    this.problems = problems
  }
}

export type SchemaError = ReturnType<typeof Value.Errors>[number]

/**
 * Turns an error of the schema library into a problem for people: which key, what is expected, and what was perhaps
 * meant. Returns nothing for an error that another one explains. Advice about YAML is left out where the text was JSON. Longer than a
 * screen, because it is the table of all kinds of errors.
 */
export function explain(
  error: SchemaError,
  config: unknown,
  root: object = ConfigSchema,
  written: 'yaml' | 'json' = 'yaml',
): Problem[] {
  // One alternative, whose union reports its own error with what it expects; or a key that is reported a second time, by its name.
  if (/\/anyOf\/\d+|\/propertyNames$/.test(error.schemaPath)) return []
  const path = parsePointer(error.instancePath, config)
  const schema = Value.Pointer.Get(root, error.schemaPath.slice(1)) as Record<string, unknown> | undefined
  switch (error.keyword) {
    case 'additionalProperties': {
      const known = Object.keys(schema?.['properties'] ?? {})
      return error.params.additionalProperties.map((key) => ({
        path: [...path, key],
        message: mayHoldSecret(key) ? lacksSpace(key, written, known) : `unknown key "${key}"${didYouMean(key, known)}`,
      }))
    }
    case 'required':
      return error.params.requiredProperties.map((key) => ({
        path: [...path, key],
        message: `the key "${key}" is missing`,
      }))
    case 'propertyNames': {
      const names = schema?.['propertyNames'] as Record<string, unknown>
      return error.params.propertyNames.map((key) => ({
        path: [...path, key],
        message: mayHoldSecret(key)
          ? lacksSpace(key, written)
          : `"${key}" is no valid name: it ${expectation(names, error)}`,
      }))
    }
    case 'enum': {
      const allowed = error.params.allowedValues.map(String)
      const given = Value.Pointer.Get(config, error.instancePath)
      const hint = typeof given === 'string' ? closest(given, allowed) : ''
      return [{ path, message: `must be one of ${allowed.join(', ')}${hint}` }]
    }
    case 'minItems':
    case 'minProperties':
    case 'minLength':
      return [{ path, message: `must not be an empty ${EMPTY[error.keyword]}` }]
    case 'minimum':
    case 'maximum':
      return [
        { path, message: `must be ${error.keyword === 'minimum' ? 'at least' : 'at most'} ${error.params.limit}` },
      ]
    case 'boolean':
    case 'not':
      return [] // follows from an unknown key, which is reported itself
    case 'anyOf': {
      const given = Value.Pointer.Get(config, error.instancePath)
      const meant = explainMeant(schema?.['anyOf'] as readonly object[], given, written)
      if (meant.length > 0) return meant.map(({ path: within, message }) => ({ path: [...path, ...within], message }))
      return [{ path, message: expectation(schema, error) }]
    }
    case '~refine':
      return [{ path, message: error.message }]
    default: {
      const given = Value.Pointer.Get(config, error.instancePath)
      const key = String(path.at(-1))
      if (given === null && key.includes(':')) return [{ path, message: lacksSpace(key, written) }]
      const advice = written === 'yaml' ? quotesFor(error, schema, given) : ''
      return [{ path, message: `${expectation(schema, error)}${advice}` }]
    }
  }
}

/** Where a least number is required, it is one. */
const EMPTY = { minItems: 'list', minProperties: 'mapping', minLength: 'text' } as const

/** Whether a key may contain a secret. YAML reads `value:pat.x`, without a space, as one key. A long key may itself be a secret. */
export function mayHoldSecret(key: string): boolean {
  return key.includes(':') || key.length > MOST_SHOWN
}

/**
 * The length of the longest key that a message shows. Our own names are shorter, and secrets of 40 characters are usual. A name that a
 * user chose may be longer: its line and column tell which one is meant.
 */
const MOST_SHOWN = 30

function lacksSpace(key: string, written: 'yaml' | 'json', known: readonly string[] = []): string {
  if (written === 'json') return `unknown key, not shown because it may hold a secret${didYouMean('', known)}`
  const name = known.find((one) => key.startsWith(`${one}:`))
  if (name !== undefined) return `unknown key, not shown: a space is missing behind "${name}:"`
  const why = key.includes(':') ? 'a space is missing behind its ":"' : `it has more than ${MOST_SHOWN} characters`
  return `unknown key, not shown because it may hold a secret: ${why}${didYouMean('', known)}`
}

/**
 * What is wrong with a mapping, judged by the alternative that was meant: the one that has the most of its keys. Empty if no
 * alternative has any, or if two have as many.
 */
function explainMeant(alternatives: readonly object[], given: unknown, written: 'yaml' | 'json'): Problem[] {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return []
  const keys = Object.keys(given)
  const known = alternatives.map((one) => keys.filter((key) => Object.hasOwn(propertiesOf(one), key)).length)
  const most = Math.max(...known)
  const [meant, another] = alternatives.filter((_, i) => known[i] === most)
  if (most === 0 || meant === undefined || another !== undefined) return []
  return [...Value.Errors(meant, given)].flatMap((error) => explain(error, given, meant, written))
}

function propertiesOf(schema: { readonly properties?: object }): object {
  return schema.properties ?? {}
}

/** Suggests quotes: YAML reads an id such as 0123 as a number, and a password such as #123 as a comment. */
function quotesFor(error: SchemaError, schema: Record<string, unknown> | undefined, given: unknown): string {
  const isText = error.keyword === 'type' && error.params.type === 'string' && schema?.['pattern'] === undefined
  if (!isText) return ''
  if (given === null) return '; nothing stands here: a text that begins with "#", "&" or "!" needs quotes'
  return typeof given === 'number' || typeof given === 'boolean' ? ': put quotes around it' : ''
}

function expectation(schema: Record<string, unknown> | undefined, error: SchemaError): string {
  if (typeof schema?.['expected'] === 'string') return `must be ${schema['expected']}`
  if (error.keyword !== 'type') return error.message
  const names: Record<string, string> = {
    object: 'a mapping',
    array: 'a list',
    string: 'a text',
    integer: 'a whole number',
    number: 'a number',
    boolean: 'true or false',
  }
  const type = String(error.params.type)
  return `must be ${names[type] ?? `of type ${type}`}`
}

/**
 * Suggests the known word that was perhaps meant, or lists the known words if they are few. Never repeats the word
 * itself, which may be a secret.
 */
export function didYouMean(word: string, known: readonly string[]): string {
  const few = known.length > 0 && known.length <= 12 ? `; known here: ${known.join(', ')}` : ''
  return closest(word, known) || few
}

/** Reports a name that is not among the known ones, with the one that was perhaps meant. */
export function checkName(
  path: Path,
  name: string,
  known: readonly string[] | ReadonlySet<string>,
  message: string,
  report: Report,
): void {
  const isKnown = 'has' in known ? known.has(name) : known.includes(name)
  if (!isKnown) report(path, message + didYouMean(name, [...known]))
}

function closest(word: string, known: readonly string[]): string {
  const sameBut = known.find((name) => name.toLowerCase() === word.toLowerCase())
  const match = sameBut ?? closestMatch(word, known, { maxDistance: Math.max(2, Math.floor(word.length / 3)) })
  return match === undefined ? '' : `; did you mean "${match}"?`
}

export function locate(problem: Problem, document: Document, lines: LineCounter): Problem {
  let node: unknown = document.contents
  let at: Node | undefined = isNode(node) ? node : undefined
  for (const [depth, step] of problem.path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(step))
      if (pair === undefined) break
      const last = depth === problem.path.length - 1
      at = (
        last && isNode(pair.value) && isScalar(pair.value) && !problem.message.startsWith('unknown key')
          ? pair.value
          : pair.key
      ) as Node
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(step)]
      if (!isNode(node)) break
      at = node
    } else break
  }
  const offset = at?.range?.[0]
  if (offset === undefined) return { ...problem, line: 1, column: 1 }
  const { line, col } = lines.linePos(offset)
  return { ...problem, line, column: col }
}

function describe(source: string, { path, message, line, column }: Problem): string {
  const where = line === undefined ? source : `${source}:${line}:${column}`
  return path.length === 0 ? `${where}: ${message}` : `${where}: ${formatPath(path)}: ${message}`
}

export function formatPath(path: Path): string {
  return joinPath(path.map((step) => (typeof step === 'string' && mayHoldSecret(step) ? '…' : step)))
}

/** Writes a path as it is. Only for a configuration that is right, whose keys are known or are names. */
export function joinPath(path: Path): string {
  return path.map((step, index) => (typeof step === 'number' ? `[${step}]` : index === 0 ? step : `.${step}`)).join('')
}

export function byPosition(a: Problem, b: Problem): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
}

export function pointer(path: Path): string {
  return path.map((step) => `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/** The path of a JSON pointer into a value. A step into a list is a number; the key of a mapping is none, even if it looks like one. */
export function parsePointer(text: string, value: unknown): Path {
  let outer = value
  return text
    .split('/')
    .slice(1)
    .map((escaped) => {
      const step = escaped.replaceAll('~1', '/').replaceAll('~0', '~')
      const isIndex = Array.isArray(outer)
      outer = (outer as Record<string, unknown> | null | undefined)?.[step]
      return isIndex ? Number(step) : step
    })
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'range' in value
}
