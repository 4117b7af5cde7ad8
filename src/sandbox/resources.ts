import { decoded } from '../http/decode.ts'
import { isV1, type Kind } from './entities.ts'
import type { Question } from './identify.ts'

/** What a request wants of the stored entities. `id` is undefined where the body names the entity. */
export interface Wanted {
  readonly kind: Kind
  readonly operation: 'list' | 'get' | 'create' | 'update' | 'upsert' | 'delete' | 'start'
  readonly id: string | undefined
  readonly org: string | undefined
  readonly project: string | undefined
}

/**
 * What a request wants of the seven kinds that hold state, or undefined for every other path, which is answered from its
 * shape alone. The paths are those of the vendor's SDKs: api_pipelines.go, api_execute.go, api_services.go,
 * api_environments.go and api_workspaces.go in harness/nextgen of https://github.com/harness/harness-go-sdk, and the
 * `/v1` paths of https://github.com/harness/harness-openapi-go-client.
 */
export function wantedOf({ method, path, query }: Question): Wanted | undefined {
  const asked = method === 'HEAD' ? 'GET' : method
  const parameters = new URLSearchParams(query)
  const found = executionWanted(asked, path, parameters) ?? entityWanted(asked, path)
  if (found === undefined) return undefined
  const { org, project, ...wanted } = found
  const inQuery = (name: string): string | undefined => parameters.get(name) ?? undefined
  return {
    ...wanted,
    id: wanted.id === undefined ? undefined : decoded(wanted.id),
    org: org === undefined ? inQuery('orgIdentifier') : decoded(org),
    project: project === undefined ? inQuery('projectIdentifier') : decoded(project),
  }
}

type Found = Pick<Wanted, 'kind' | 'operation'> & Partial<Pick<Wanted, 'id' | 'org' | 'project'>>

const V1_SCOPE = String.raw`\/v1\/(?:orgs\/(?<org>[^/]+)\/(?:projects\/(?<project>[^/]+)\/)?)?`
const START = [
  /^\/pipeline\/api\/pipeline\/execute\/(?<id>[^/]+)(?:\/stages|\/inputSetList)?$/,
  /^\/pipeline\/api\/pipelines\/v2\/execute\/(?<id>[^/]+)$/,
  new RegExp(`^${V1_SCOPE}pipelines/(?<id>[^/]+)/execute$`),
]
const EXECUTION = /^\/pipeline\/api\/pipelines\/(?:v2\/)?execution\/(?:v2\/)?(?<id>[^/]+)$/

function executionWanted(method: string, path: string, parameters: URLSearchParams): Found | undefined {
  const kind = 'execution'
  if (method === 'POST') {
    if (path.endsWith('/execution/summary')) {
      return { kind, operation: 'list', id: parameters.get('pipelineIdentifier') ?? undefined }
    }
    for (const pattern of START) {
      const groups = pattern.exec(path)?.groups
      if (groups !== undefined && groups['id'] !== 'preflightCheck') return { kind, operation: 'start', ...groups }
    }
  }
  const groups = method === 'GET' ? EXECUTION.exec(path)?.groups : undefined
  return groups && { kind, operation: 'get', ...groups }
}

const COLLECTIONS: readonly (readonly [RegExp, Kind | undefined])[] = [
  [/^\/pipeline\/api\/pipelines(?:\/v2)?(?=\/|$)/, 'pipeline'],
  [/^\/template\/api\/templates(?=\/|$)/, 'template'],
  [/^\/ng\/api\/servicesV2(?=\/|$)/, 'service'],
  [/^\/ng\/api\/environmentsV2(?=\/|$)/, 'environment'],
  [/^\/ng\/api\/connectors(?=\/|$)/, 'connector'],
  [/^\/iacm\/api\/(?:orgs\/(?<org>[^/]+)\/projects\/(?<project>[^/]+)\/)?workspaces(?=\/|$)/, 'workspace'],
  [new RegExp(`^${V1_SCOPE}(?<plural>pipelines|templates|services|environments|connectors)(?=/|$)`), undefined],
]

/** Last segments that are the names of operations, so that they are never taken for identifiers. */
const OPERATIONS = new Set(
  `access batch catalogue fieldValues getExecutionNode getceawstemplateurl hooks import listbyfqn notification
  pipelineExecution pipelineHealth schema serviceOverrides stats templateInputs validate-pipeline-with-schema
  validateUniqueIdentifier variables`.split(/\s+/),
)
const LISTS = new Set(['list', 'listV2', 'list-metadata'])

function entityWanted(method: string, path: string): Found | undefined {
  for (const [pattern, named] of COLLECTIONS) {
    const match = pattern.exec(path)
    if (match === null) continue
    const { org, project, plural = '' } = match.groups ?? {}
    const kind = named ?? (plural.slice(0, -1) as Kind)
    const rest = path.slice(match[0].length).split('/').filter(Boolean)
    const found = operationOf(method, rest, kind, isV1(path))
    return found && { kind, org, project, ...found }
  }
  return undefined
}

type OfEntity = Pick<Found, 'operation' | 'id'>

function operationOf(method: string, rest: readonly string[], kind: Kind, v1: boolean): OfEntity | undefined {
  const [first, second] = rest
  if (first === undefined) {
    const operation = OF_COLLECTION[method]
    return operation && { operation }
  }
  if (LISTS.has(first) && second === undefined) return method === 'PUT' ? undefined : { operation: 'list' }
  if (first === 'upsert' && method === 'PUT') return { operation: 'upsert' }
  if (first === 'summary' && second !== undefined && method === 'GET') return { operation: 'get', id: second }
  if (second === 'summary' && method === 'GET') return { operation: 'get', id: first }
  // A template's version is not stored apart: the sandbox has one version of each.
  if (kind === 'template' && first === 'update' && method === 'PUT') return { operation: 'update', id: second }
  if (kind === 'template' && !v1 && rest.length === 2 && method === 'DELETE') return { operation: 'delete', id: first }
  if (rest.length > 1 || OPERATIONS.has(first)) return undefined
  const operation = OF_ENTITY[method]
  return operation && { operation, id: first }
}

type Operations = Readonly<Record<string, Wanted['operation']>>

const OF_COLLECTION: Operations = { GET: 'list', POST: 'create', PUT: 'update' }
const OF_ENTITY: Operations = { GET: 'get', PUT: 'update', PATCH: 'update', DELETE: 'delete' }
