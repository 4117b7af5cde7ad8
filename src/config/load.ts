import { isUtf8 } from 'node:buffer'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Settings } from 'typebox/system'
import { Value } from 'typebox/value'
import { type Document, isAlias, isMap, isScalar, isSeq, type Scalar, visit } from 'yaml'
import { Secret } from '../schema/secret.ts'
import type { Answer, Found } from '../secrets/source.ts'
import { findContradictions } from './contradictions.ts'
import { Cut } from './cut.ts'
import { presets } from './presets/index.ts'
import type { Preset } from './presets/preset.ts'
import {
  byPosition,
  ConfigError,
  explain,
  locate,
  parsePointer,
  type Path,
  pointer,
  type Problem,
  type SchemaError,
} from './problem.ts'
import { ProblemList } from './problem-list.ts'
import { ClientSchema } from '../schema/client-schema.ts'
import { flatCopy } from '../schema/flat-copy.ts'
import { isObject } from '../schema/json.ts'
import { IssuerSchema } from '../schema/issuer-schema.ts'
import { WebhookSchema } from '../schema/webhook-schema.ts'
import { type Config, ConfigSchema } from '../schema/schema.ts'
import { UpstreamSchema } from '../schema/upstream-schema.ts'
import { type LookUp, lookUpWith, resolveReferences } from '../secrets/references.ts'
import { pathOf, readYaml, type YamlText } from './yaml.ts'

// The default of eight errors would hide the rest of a badly broken file, and we promise to report everything at once. To sort unions,
// the library would copy the whole schema twice for each configuration, which takes longer than to check it. No union here needs that.
Settings.Set({ maxErrors: 1000, unionPrioritySort: false })

export interface LoadOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Says where a reference may stay unresolved, because nobody will use its value. */
  readonly ignores?: (path: Path) => boolean
  /** The values that were fetched beforehand, by `kind:name`. */
  readonly fetched?: ReadonlyMap<string, Answer>
  /** Called with the path of every file before it is read, even if it can't be. */
  readonly onFile?: (path: string) => void
}

/**
 * Reads a configuration as if `text` were the content of that file, or throws a `ConfigError` that lists everything that is wrong with
 * it. A text that was parsed already is used up: secrets take the place of its references. Relative paths in references start at the file's folder. An error never contains a value that came from a reference.
 */
export function parseConfigOf(file: string, text: string | YamlText, options: LoadOptions = {}): Config {
  return parseConfig(text, { ...options, source: file, folder: dirname(resolve(file)) })
}

export function readConfigFile(file: string, { onFile }: LoadOptions = {}): string {
  onFile?.(resolve(file))
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    throw new ConfigError(file, [{ path: [], message: `can't be read: ${(error as Error).message}` }])
  }
  // Other encodings would be read with wrong characters, also in secrets.
  if (!isUtf8(bytes)) throw new ConfigError(file, [{ path: [], message: 'is not in UTF-8: save it in this encoding' }])
  return bytes.toString('utf8')
}

export function parseConfig(
  text: string | YamlText,
  {
    source = 'config',
    env = process.env,
    folder = process.cwd(),
    ignores = () => false,
    fetched = new Map(),
    onFile,
  }: LoadOptions & { source?: string; folder?: string } = {},
): Config {
  const { document, lines, problems: unreadable } = typeof text === 'string' ? readYaml(text) : text
  if (unreadable.length > 0) throw new ConfigError(source, unreadable)
  const references = replaceReferences(document, lookUpWith(env, folder, fetched, onFile))
  const raw = toPlain(document, source) ?? {}
  const { whole, unresolved, origins } = references
  const paths = pathsOf(document, new Set([...origins.keys(), ...unresolved.values()]))
  const placesOf = (scalars: Iterable<Scalar>): Set<string> =>
    new Set([...scalars].flatMap((scalar) => (paths.get(scalar) ?? []).map(pointer)))
  const { config, problems } = validate(raw, {
    problems: [...unresolved.keys()],
    whole: placesOf(whole),
    unresolved: placesOf(unresolved.values()),
  })
  // Aliases may repeat a reference. Its problem is ignored only if nobody uses its value at any of its places.
  const isIgnored = (problem: Problem): boolean =>
    unresolved.has(problem) && (paths.get(unresolved.get(problem)!) ?? [problem.path]).every(ignores)
  const found = problems.filter((problem) => !isIgnored(problem))
  // If there are other problems, references were not fetched. To report these references would only hide the others.
  const others = found.filter((problem) => !references.unasked.has(problem))
  const wrong = others.length > 0 ? others : found
  if (config === undefined || wrong.length > 0) {
    throw new ConfigError(source, wrong.map((problem) => locate(problem, document, lines)).sort(byPosition))
  }
  rememberOrigins(config, { origins, paths, folder })
  return config
}

/** The document as plain values. Throws a `ConfigError` if aliases of aliases stand for too many of them. */
function toPlain(document: Document, source: string): unknown {
  try {
    return unshared(document.toJS())
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error
    throw new ConfigError(source, [{ path: [], message: 'its aliases stand for too many values' }])
  }
}

/**
 * Copies what aliases share. Otherwise a default that is filled in at one place would also appear at the other. Copies each text, too: the
 * parser cuts texts out of the file's, and one of them would keep all of it in memory.
 */
function unshared(value: unknown): unknown {
  if (typeof value === 'string') return flatCopy(value)
  if (Array.isArray(value)) return value.map(unshared)
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unshared(inner)]))
}

/** Checks a configuration that was made in code (by the environment or the demo) as a file is checked. */
export function checkConfig(raw: unknown, source: string): Config {
  const { config, problems } = validate(raw, { problems: [], whole: new Set(), unresolved: new Set() })
  if (config === undefined || problems.length > 0) throw new ConfigError(source, problems)
  return config
}

interface References {
  /** The problems of references that would have been fetched if nothing else were wrong. */
  unasked: Set<Problem>
  /** Scalars that consist of one reference: their text may stand for a number. */
  whole: Set<Scalar>
  /** Problems of references that lead to nothing, and their scalars, which still have the text of the file. */
  unresolved: Map<Problem, Scalar>
  /** The text in the file of each scalar that contained references, and what it resolved to. */
  origins: Map<Scalar, { text: string; found: Found }>
}

const PLACE =
  'says where secrets are looked up, so it can not be looked up there itself: use ${env:NAME} or ${file:/path}'

function replaceReferences(document: Document, lookUp: LookUp): References {
  const references: References = {
    unasked: new Set(),
    whole: new Set(),
    unresolved: new Map(),
    origins: new Map(),
  }
  visit(document, {
    Scalar(key, node, ancestors) {
      if (key === 'key' || typeof node.value !== 'string' || !node.value.includes('${')) return
      const path = pathOf(node, ancestors)
      const resolution = resolveReferences(node.value, lookUp)
      if ('problem' in resolution) {
        const isPlace = path[0] === 'store' || path[0] === 'secrets'
        const isUnasked = 'isUnasked' in resolution
        const problem = { path, message: isUnasked && isPlace ? PLACE : resolution.problem }
        references.unresolved.set(problem, node)
        if (isUnasked && !isPlace) references.unasked.add(problem)
        return
      }
      if (resolution.referenced && /^\$\{[^}]*\}$/.test(node.value)) references.whole.add(node)
      if (resolution.referenced) references.origins.set(node, { text: node.value, found: resolution })
      node.value = resolution.text
    },
  })
  return references
}

/** Where these scalars stand: at their own places, and at those of aliases that lead to them. */
function pathsOf(document: Document, scalars: ReadonlySet<Scalar>): Map<Scalar, Path[]> {
  const paths = new Map<Scalar, Path[]>()
  const walk = (node: unknown, path: Path): void => {
    if (isAlias(node)) walk(node.resolve(document), path)
    else if (isSeq(node)) for (const [i, item] of node.items.entries()) walk(item, [...path, i])
    else if (isMap(node)) {
      for (const { key, value } of node.items) if (isScalar(key)) walk(value, [...path, String(key.value)])
    } else if (scalars.has(node as Scalar)) paths.getOrInsertComputed(node as Scalar, () => []).push(path)
  }
  if (scalars.size > 0) walk(document.contents, [])
  return paths
}

/** Notes at each secret the text with references that it came from, so that changes of its value can be followed. */
function rememberOrigins(
  config: Config,
  { origins, paths, folder }: Pick<References, 'origins'> & { paths: ReadonlyMap<Scalar, Path[]>; folder: string },
): void {
  for (const [scalar, { text, found }] of origins) {
    for (const path of paths.get(scalar) ?? []) {
      const value = path.reduce<unknown>((outer, key) => (outer as Record<string, unknown> | undefined)?.[key], config)
      if (!(value instanceof Secret)) continue
      value.template = { text, folder }
      value.expiresAt = found.expiresAt
      value.replace(value.reveal(), found.next, found.nextExpiresAt)
    }
  }
}

/** What is known of references before the rest is checked. The places are those of the file. */
interface Resolved {
  readonly problems: Problem[]
  readonly whole: ReadonlySet<string>
  readonly unresolved: ReadonlySet<string>
}

function validate(raw: unknown, references: Resolved): { config?: Config; problems: Problem[] } {
  const cut = new Cut()
  const found = new ProblemList(references, raw, cut)
  let candidate = withDefaults(raw)
  convertReferenced(candidate, references.whole)
  let isWhole = true
  // Cuts out what is wrong, so that the same run can look for contradictions in the rest.
  for (let errors = errorsIn(candidate); errors.length > 0; errors = errorsIn(candidate)) {
    for (const error of errors) {
      if (isWhole && isOfReferences(error, errors, references.unresolved)) continue
      for (const problem of explain(error, candidate)) {
        if (isWhole) found.add(problem)
        else found.addUnlessCausedByOthers(problem)
      }
    }
    isWhole = false
    // structuredClone would throw: where a list stands instead of a client, the defaults have kept the list's own
    // method `keys`.
    const rest = JSON.parse(JSON.stringify(candidate)) as unknown
    const wrong: Path[] = []
    for (const error of errors) {
      const path = parsePointer(error.instancePath, candidate)
      // The root can't be cut out.
      if (path.length === 0 && error.keyword !== 'additionalProperties' && error.keyword !== 'propertyNames') {
        return { problems: found.all }
      }
      // An object that lacks a key is cut out as a whole. So is a value that fits none of several alternatives: without a part of
      // it, it might fit one that was not meant.
      const isCutWhole = error.keyword === 'required' || error.keyword === 'anyOf'
      for (const problem of explain(error, candidate)) wrong.push(isCutWhole ? path : problem.path)
    }
    cut.remove(rest, wrong)
    candidate = withDefaults(rest)
  }
  const config = Value.Decode(ConfigSchema, candidate)
  for (const problem of findContradictions(config)) found.addUnlessCausedByOthers(problem)
  return { config, problems: found.all }
}

function errorsIn(candidate: unknown): SchemaError[] {
  return [...Value.Errors(ConfigSchema, candidate)]
}

/**
 * Whether an error comes only from references that do not resolve. A union's error does if they cause all errors of one of its
 * alternatives: the rest of the value may be right, but the union's message would blame all of it.
 */
function isOfReferences(error: SchemaError, all: readonly SchemaError[], unresolved: ReadonlySet<string>): boolean {
  const { keyword, instancePath, schemaPath } = error
  if (unresolved.has(instancePath)) return true
  if (keyword !== 'anyOf' || unresolved.size === 0) return false
  const start = `${schemaPath}/anyOf/`
  const within = all.filter(
    (one) => one.schemaPath.startsWith(start) && `${one.instancePath}/`.startsWith(`${instancePath}/`),
  )
  // Errors within a nested union are looked at with the error of that union.
  const own = within.filter((one) => !one.schemaPath.slice(start.length).includes('/anyOf/'))
  const alternatives = Map.groupBy(own, (one) => one.schemaPath.slice(start.length).split('/')[0]).values()
  return alternatives.some((errors) => errors.every((one) => isOfReferences(one, all, unresolved)))
}

/** Mappings with names that the user chooses. The library fills in no defaults in their values. */
const NAMED = [
  ['clients', ClientSchema],
  ['tokenIssuers', IssuerSchema],
  ['webhooks', WebhookSchema],
] as const

/** Merges each upstream into its preset, and fills in the defaults of the schema. */
function withDefaults(raw: unknown): unknown {
  if (!isObject(raw)) return raw
  const config = structuredClone(raw)
  for (const [name, upstream] of Object.entries(asObject(config['upstreams']))) {
    if (!isObject(upstream)) continue
    const preset = entryOf(presets, upstream['preset'])
    asObject(config['upstreams'])[name] = Value.Default(
      UpstreamSchema,
      preset ? overlay(configOf(preset, upstream['limitSet']), upstream) : upstream,
    )
  }
  for (const [key, schema] of NAMED) {
    const named = asObject(config[key])
    for (const [name, value] of Object.entries(named)) named[name] = Value.Default(schema, value)
  }
  return Value.Default(ConfigSchema, config)
}

function configOf({ config, limitSets = {} }: Preset, limitSet: unknown): object {
  const limits = entryOf(limitSets, limitSet)
  return limits === undefined ? config : { ...config, limits }
}

/** An entry that the object itself has. The `toString` that it inherits would be copied into the configuration. */
function entryOf<T>(entries: Readonly<Record<string, T>>, name: unknown): T | undefined {
  return typeof name === 'string' && Object.hasOwn(entries, name) ? entries[name] : undefined
}

function overlay(preset: object, upstream: Record<string, unknown>): Record<string, unknown> {
  const merged: Record<string, unknown> = structuredClone({ ...preset })
  for (const [key, value] of Object.entries(upstream)) {
    merged[key] = isObject(value) && isObject(merged[key]) ? { ...merged[key], ...value } : value
  }
  return merged
}

/**
 * Converts the text of references such as `port: ${env:PORT}` or `watch: ${env:WATCH}`. It does so only where the schema wants a
 * number, or true or false, and only for a scalar that is one reference and nothing else.
 */
function convertReferenced(candidate: unknown, whole: ReadonlySet<string>): void {
  if (whole.size === 0) return
  for (const error of Value.Errors(ConfigSchema, candidate)) {
    if (error.keyword !== 'type' || !whole.has(error.instancePath)) continue
    const text = Value.Pointer.Get(candidate, error.instancePath)
    const value = valueOf(String(text), error.params.type)
    if (value !== undefined) Value.Pointer.Set(candidate, error.instancePath, value)
  }
}

function valueOf(text: string, type: unknown): number | boolean | undefined {
  if (type === 'boolean') return text === 'true' || (text === 'false' ? false : undefined)
  return (type === 'number' || type === 'integer') && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : undefined
}

function asObject(value: unknown): Record<string, unknown> {
  return isObject(value) ? value : {}
}
