import { readFileSync } from 'node:fs'
import { parse, stringify } from 'yaml'
import { soundsLikeChanging, soundsLikeReading } from '../config/presets/words.ts'
import { decoded } from '../http/decode.ts'
import { completeRoute, guessedRoute, isSafeMethod, type Route } from '../routing/route.ts'
import { RouteTable } from '../routing/route-table.ts'
import { isObject } from '../schema/json.ts'
import { ROUTE_PATH } from '../schema/schema-parts.ts'
import { countOf } from '../schema/units.ts'
import { CommandError } from './command-error.ts'
import { presetNamed } from './preset.ts'
import { printable } from './printable.ts'

/** An operation of an OpenAPI document. */
interface Operation {
  readonly method: string
  readonly path: string
  readonly id: string
}

const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace', 'query']

/**
 * Proposes `routes` for the operations of an OpenAPI document (2 or 3, YAML or JSON): for each its class, whether it is safe to
 * retry, and why. With a preset its classes are proposed, for paths below its URL; else `read` and `write`, for paths below the base
 * URL of the document. By a guess alone an operation is called safe only if its path says that it only reads. What no route
 * can say is named and left out. Throws a `CommandError` if the file is no such document.
 */
export function routes(file: string, { preset: name }: { readonly preset?: string }): void {
  const preset = name === undefined ? undefined : presetNamed(name)
  const document = read(file)
  const base = baseOf(document)
  const { operations, notes } = operationsOf(file, document)
  const known = preset && new RouteTable({ layers: [preset.routes()], classify: preset.classify })
  const own = preset && pathOf((preset.config as { url?: string }).url ?? '')
  const lines = operations.map(({ path, ...rest }) =>
    lineOf({ ...rest, path: own === undefined ? path : pathBelow(own, base, path) }, known),
  )
  const doubtful = lines.filter((line) => line.includes(DOUBT)).length
  const where = own === undefined ? `its base URL${base === '' ? '' : `, ${base}`}` : 'the URL of the preset'
  process.stdout.write(
    [
      comment(
        `Proposed for ${countOf(operations.length, 'operation')} of ${file}, with paths below ${where}. ${doubtful === 1 ? '1 is a guess' : `${doubtful} are guesses`}, marked with "${DOUBT}".`,
      ),
      ...notes.map(comment),
      'routes:',
      ...lines.map((line) => `  - ${line}`),
      '',
    ].join('\n'),
  )
}

/** One line, whatever the document says: a second one would be read as configuration. */
function comment(text: string): string {
  return `# ${printable(text)}`
}

const DOUBT = 'a guess:'

function read(file: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (error) {
    throw new CommandError(`can't read ${file} (${(error as NodeJS.ErrnoException).code})`)
  }
  let document: unknown
  try {
    // Without a bound for aliases: documents that generators wrote have many.
    document = parse(text, { maxAliasCount: -1, logLevel: 'error', merge: true })
  } catch (error) {
    throw new CommandError(`${file} is neither YAML nor JSON: ${(error as Error).message.split('\n', 1)[0]}`)
  }
  if (!isObject(document) || !isObject(document['paths'])) {
    throw new CommandError(`${file} is no OpenAPI document: it has no "paths"`)
  }
  return document
}

/** The base URL of an OpenAPI 3 document, that of its first server, or the base path of a version 2 document; '' if there is none. */
function baseOf({ servers, basePath }: Record<string, unknown>): string {
  const first: unknown = Array.isArray(servers) ? servers[0] : undefined
  const base = isObject(first) ? first['url'] : basePath
  return typeof base === 'string' ? base.replace(/\/+$/, '') : ''
}

function pathOf(url: string): string {
  return url.replace(/^[a-z]+:\/\/[^/]*/, '').replace(/\/+$/, '')
}

/** A path as it is below a preset's URL, if the document's base and the path together lead there. Otherwise the path itself. */
function pathBelow(own: string, base: string, path: string): string {
  const whole = pathOf(base) + path
  return whole.startsWith(`${own}/`) ? whole.slice(own.length) : path
}

function operationsOf(file: string, document: Record<string, unknown>): { operations: Operation[]; notes: string[] } {
  const found = new Map<string, Operation>()
  const notes: string[] = []
  for (const [written, entry] of Object.entries(document['paths'] as object)) {
    if (written.startsWith('x-')) continue
    const path = routePathOf(written)
    if (path === undefined) {
      notes.push(`Left out, because no route can have such a path: ${JSON.stringify(written)}`)
      continue
    }
    const item = resolved(document, entry)
    if (item === undefined)
      notes.push(`Left out, because it ${isObject(entry) ? 'stands in another place' : 'says nothing'}: ${written}`)
    for (const method of METHODS) {
      const operation = item?.[method]
      if (!isObject(operation)) continue
      const { operationId } = operation
      const id = typeof operationId === 'string' ? operationId : ''
      // A HEAD has the route of the GET.
      const meant = method === 'head' ? 'GET' : method.toUpperCase()
      const key = `${meant} ${path}`
      if (!found.has(key)) found.set(key, { method: meant, path, id })
      else if (method !== 'head') notes.push(`Once more ${meant} ${written}: routes do not tell queries apart`)
    }
  }
  if (found.size === 0) throw new CommandError(`${file} has no operations below "paths"`)
  return { operations: [...found.values()], notes }
}

const POSSIBLE = new RegExp(ROUTE_PATH)

/** The path as a route has it, without query. A last `{name+}`, as AWS writes it, or `{name:.*}` becomes `*`, the rest of a path. */
function routePathOf(written: string): string | undefined {
  const path = written
    .replace(/[?#].*$/s, '')
    .replace(/\{[^{}/]*(?:[+*]|:\.[*+])\}$/, '*')
    .replaceAll(/\{([^{}/:]*):[^{}/]*\}/g, '{$1}')
  return POSSIBLE.test(path) ? path : undefined
}

/** The operations of a path, which may be a reference within the document; undefined if they are not there. */
function resolved(document: Record<string, unknown>, entry: unknown): Record<string, unknown> | undefined {
  let item = entry
  // Not for ever, because a reference may lead to itself.
  for (let hops = 0; isObject(item) && typeof item['$ref'] === 'string' && hops < 10; hops++) {
    const { $ref: reference, ...beside } = item
    const [file, pointer = ''] = reference.split('#')
    const there = file === '' ? valueAt(document, pointer) : undefined
    if (!isObject(there)) return undefined
    item = { ...there, ...beside }
  }
  return isObject(item) && item['$ref'] === undefined ? item : undefined
}

/** RFC 6901, as the fragment of a URL. */
function valueAt(document: unknown, pointer: string): unknown {
  let value = document
  for (const part of pointer.split('/').slice(1)) {
    if (!isObject(value)) return undefined
    value = value[decoded(part).replaceAll('~1', '/').replaceAll('~0', '~')]
  }
  return value
}

function lineOf(operation: Operation, known: RouteTable | undefined): string {
  const { method, path } = operation
  const { route, because } = known === undefined ? guessed(operation) : presetRoute(operation, known)
  const { class: className, charges, retry } = route
  const entry = {
    method,
    path,
    class: className,
    ...(charges.length === 1 && charges[0] === className ? {} : { charges }),
    ...(retry === usualRetry(method) ? {} : { retry }),
  }
  const text = stringify(entry, { collectionStyle: 'flow', flowCollectionPadding: true, lineWidth: 0 }).trim()
  return `${text} ${comment(because)}`
}

/** What holds for a route that does not say whether it is safe to retry (RFC 9110 §9.2.2). */
function usualRetry(method: string): Route['retry'] {
  return completeRoute(method, { class: 'any' }).retry
}

type Proposal = { readonly route: Route; readonly because: string }

function presetRoute({ method, path }: Operation, known: RouteTable): Proposal {
  const route = known.find(method, path.replaceAll(/\{[^{}]*\}/g, 'x'))
  const because = route.pattern === undefined ? `${DOUBT} by the preset’s rule` : 'known to the preset'
  return { route, because }
}

function guessed({ method, path, id }: Operation): Proposal {
  // The verb of `/things/{id}:search` counts, and the name of a parameter does not.
  const named = path.replaceAll(/\{[^{}]*\}/g, 'x_1').replace(/:([A-Za-z]+)$/, '/$1')
  const { isReading, because } = judge(method, named, id)
  return { route: guessedRoute(method, path, { class: isReading ? 'read' : 'write' }), because }
}

function judge(method: string, path: string, id: string): { isReading: boolean; because: string } {
  if (isSafeMethod(method)) {
    return soundsLikeChanging(path)
      ? { isReading: false, because: `${DOUBT} ${method}, but its path names a change` }
      : { isReading: true, because: `${method} is safe (RFC 9110 §9.2.1)` }
  }
  if (method !== 'POST') return { isReading: false, because: `${method} changes something` }
  if (soundsLikeReading(path)) return { isReading: true, because: `${DOUBT} its path names a question` }
  if (id !== '' && soundsLikeReading(`/${id}`)) {
    return { isReading: true, because: `${DOUBT} it is named ${JSON.stringify(id)}` }
  }
  return { isReading: false, because: 'POST, and nothing says that it only reads' }
}
