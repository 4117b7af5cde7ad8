import { parse } from 'yaml'
import { words } from '../config/presets/words.ts'
import { isObject } from '../schema/json.ts'
import { KEPT_BYTES } from './body.ts'
import { VendorError } from './outcome.ts'

const MOST_DEPTH = 100

/** What an entity says of itself. */
export interface Fields {
  readonly identifier: string
  readonly name: string
  readonly [field: string]: unknown
}

/** What the sandbox stores; every other kind is answered from the shape of its path. */
export type Kind = 'pipeline' | 'template' | 'service' | 'environment' | 'connector' | 'workspace' | 'execution'

/** An entity as it is stored. Times are in milliseconds since 1970. */
export interface Stored {
  readonly fields: Fields
  /** The YAML with which a pipeline or template was sent. */
  readonly yaml?: string | undefined
  readonly createdAt: number
  readonly changedAt: number
}

/**
 * How one entity is shown, alone and in lists: as in the models of the vendor's SDKs, nextgen/docs of
 * https://github.com/harness/harness-go-sdk (PageResponsePmsPipelineSummaryResponse, PipelineExecutionDetail,
 * PipelineExecutionSummary, ProjectResponse, TemplateResponse) and, for `/v1`, of
 * https://github.com/harness/harness-openapi-go-client (OrganizationResponse, PipelineGetResponseBody, RolesResponse).
 */
export function shown(path: string, kind: string, fields: Fields, stored: Times = SEEDED): object {
  const { createdAt, changedAt } = stored
  const times = isV1(path) ? { created: createdAt, updated: changedAt } : { createdAt, lastModifiedAt: changedAt }
  return BARE.test(`${path}/`) ? { ...fields, ...times } : { [kind]: fields, ...times }
}

/** What `GET` of a path that names one entity says of it. */
export function shownAlone(path: string, kind: string, { fields, yaml: sent, ...times }: Stored): object {
  const { identifier, name } = fields
  const entity = shown(path, kind, fields, times)
  const yaml = sent ?? `pipeline:\n  identifier: ${JSON.stringify(identifier)}\n  name: ${JSON.stringify(name)}\n`
  // Beside its YAML, which is all that the vendor documents, the pipeline as an object: there are clients that read it.
  if (PIPELINE.test(path)) return { yamlPipeline: yaml, pipeline: entity }
  if (V1_PIPELINE.test(path)) return { pipeline_yaml: yaml, ...entity }
  return entity
}

export function fieldsOf(identifier: string): Fields {
  return { identifier, name: identifier, description: '', tags: {} }
}

/**
 * The fields of what was sent in JSON or YAML, bare or below the name of its kind. An identifier that is missing is
 * `fallback`, and a name that is missing is the identifier. Null for a body that says nothing of an entity. Throws a
 * `SyntaxError` for JSON that is broken, and a `VendorError` for what is nested too deeply.
 */
export function sentFields(body: string, kind: string, fallback: string): Fields | null {
  const sent = readEntity(body)
  if (!isObject(sent)) return null
  // It could be kept, but no answer could be made of it.
  if (isDeeper(sent, MOST_DEPTH))
    throw new VendorError(400, `The sandbox takes bodies that are nested at most ${MOST_DEPTH} deep.`)
  const inner = sent[kind]
  const fields = isObject(inner) ? inner : sent
  const identifier = text(fields['identifier']) ?? text(sent['identifier']) ?? fallback
  const name = text(fields['name']) ?? text(sent['name']) ?? identifier
  return { ...fields, identifier, name }
}

/** Also true for YAML that holds itself. */
function isDeeper(value: unknown, than: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return than === 0 || Object.values(value).some((inner) => isDeeper(inner, than - 1))
}

/** Whether the path is of an API that answers without an envelope: the newer one, and that of workspaces. */
export function isV1(path: string): boolean {
  return path.startsWith('/v1/') || isWorkspaces(path)
}

/** The API of workspaces: bare as the newer one, but 200 for what is new and 409 for what is there already. */
export function isWorkspaces(path: string): boolean {
  return path.startsWith('/iacm/')
}

/** `project` in `/ng/api/projects/my-project`, `userGroup` in `/ng/api/user-groups`. */
export function kindOf(segments: readonly string[]): string {
  const [first = 'item', ...rest] = words(segments.findLast(isPlural) ?? 'items')
  const name = first + rest.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')
  return name.replace(/ies$/, 'y').replace(/s$/, '')
}

export function isPlural(segment: string): boolean {
  return /[^sui]s$/.test(words(segment).at(-1) ?? '')
}

const PIPELINE = /^\/pipeline\/api\/pipelines\/(?:v2\/)?[^/]+$/
const V1_PIPELINE = /^\/v1\/.*\/pipelines\/[^/]+$/
/** Entities that stand there as they are; others stand under the name of what they are. */
const BARE =
  /^\/(?:(?:pipeline|template|iacm)\/api|ng\/api\/user-groups|v1\/(?:.*\/)?(?:pipelines|input-sets|triggers|templates|roles|resource-groups))\//

// One moment for all, so that a question asked twice gets the same data.
const SEEDED_AT = Date.UTC(2026, 0)
type Times = Pick<Stored, 'createdAt' | 'changedAt'>
/** The times of everything that no client created. */
export const SEEDED: Times = { createdAt: SEEDED_AT, changedAt: SEEDED_AT }

/** An execution succeeds this many milliseconds after its start. */
export const RUNNING_MS = 1_000

/** An execution as the vendor's PipelineExecutionSummary has it. `now` is in milliseconds since 1970. */
export function executionSummary({ fields, createdAt }: Stored, now: number): object {
  const isRunning = now < createdAt + RUNNING_MS
  return {
    pipelineIdentifier: fields['pipelineIdentifier'],
    name: fields['pipelineName'] ?? fields['pipelineIdentifier'],
    tags: [],
    planExecutionId: fields.identifier,
    status: isRunning ? 'Running' : 'Success',
    startTs: createdAt,
    ...(isRunning ? {} : { endTs: createdAt + RUNNING_MS }),
    createdAt,
    runSequence: fields['runSequence'] ?? 1,
  }
}

/** Whether a body is YAML, as those of pipelines and templates are, and not JSON. */
export function isYaml(body: string): boolean {
  return !/^\s*[[{]/.test(body)
}

/** YAML is told by a key at its beginning: most bodies that are no JSON are no YAML either. */
function readEntity(body: string): unknown {
  if (!isYaml(body)) return readJson(body)
  if (!/^(?:---\s*\n|#.*\n|\s*\n)*[\w-]+:(?:\s|$)/.test(body)) return null
  try {
    return parse(body, { logLevel: 'silent' })
  } catch {
    return null
  }
}

function readJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch (error) {
    if (Buffer.byteLength(body) >= KEPT_BYTES) return null // its end was not kept
    throw error
  }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
