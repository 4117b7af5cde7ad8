import { readFileSync } from 'node:fs'
import { parse, stringify } from 'yaml'
import { soundsLikeChanging, soundsLikeReading } from '../config/presets/words.ts'
import { completeRoute, guessedRoute, isSafeMethod, type Route } from '../routing/route.ts'
import { RouteTable } from '../routing/route-table.ts'
import { CommandError } from './command-error.ts'
import { presetNamed } from './preset.ts'

/** An operation of an OpenAPI document. */
interface Operation {
  readonly method: string
  readonly path: string
  readonly id: string
}

const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace', 'query']

/**
 * Proposes `routes` for the operations of an OpenAPI document (2 or 3, YAML or JSON): for each its class, whether it is safe to
 * retry, and why. With a preset its classes are proposed, else `read` and `write`. No operation is called safe because of a
 * guess alone, but where its path says that it only reads. Throws a `CommandError` if the file is no such document.
 */
export function routes(file: string, { preset: name }: { readonly preset?: string }): void {
  const preset = name === undefined ? undefined : presetNamed(name)
  const document = read(file)
  const { operations, notes } = operationsOf(file, document)
  const known = preset && new RouteTable({ layers: [preset.routes()], classify: preset.classify })
  const lines = operations.map((operation) => lineOf(operation, known))
  const doubtful = lines.filter((line) => line.includes(DOUBT)).length
  process.stdout.write(
    [
      `# Proposed for ${operations.length} operations of ${file}, with paths below its base URL. ${doubtful} are guesses, marked with "${DOUBT}".`,
      ...notes.map((note) => `# ${note}`),
      'routes:',
      ...lines.map((line) => `  - ${line}`),
      '',
    ].join('\n'),
  )
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
    // Each anchor may be used: documents that generators wrote have many.
    document = parse(text, { maxAliasCount: -1, logLevel: 'error' })
  } catch (error) {
    throw new CommandError(`${file} is neither YAML nor JSON: ${(error as Error).message.split('\n', 1)[0]}`)
  }
  if (!isObject(document) || !isObject(document['paths'])) {
    throw new CommandError(`${file} is no OpenAPI document: it has no "paths"`)
  }
  return document
}

function operationsOf(file: string, document: Record<string, unknown>): { operations: Operation[]; notes: string[] } {
  const operations: Operation[] = []
  const notes: string[] = []
  for (const [path, item] of Object.entries(document['paths'] as object)) {
    if (!path.startsWith('/') || !isObject(item)) {
      if (!path.startsWith('x-')) notes.push(`Left out, because it is no path: ${JSON.stringify(path)}`)
      continue
    }
    if (item['$ref'] !== undefined) notes.push(`Left out, because it stands in another place: ${path}`)
    for (const method of METHODS) {
      const operation = item[method]
      if (!isObject(operation)) continue
      const { operationId } = operation
      operations.push({ method: method.toUpperCase(), path, id: typeof operationId === 'string' ? operationId : '' })
    }
  }
  if (operations.length === 0) throw new CommandError(`${file} has no operations below "paths"`)
  return { operations, notes }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
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
  return `${text} # ${because}`
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
  // Of `/things/{id}:search` the verb counts, and of a parameter not what it is called.
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
