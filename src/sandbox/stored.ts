import { randomUUID } from 'node:crypto'
import { KEPT_BYTES } from './body.ts'
import { executionSummary, type Fields, isV1, isWorkspaces, isYaml, sentFields, shown, shownAlone } from './entities.ts'
import type { Stored } from './entities.ts'
import type { Question } from './identify.ts'
import { type Outcome, pageOf, VendorError } from './outcome.ts'
import type { Wanted } from './resources.ts'
import type { Store } from './store.ts'

/**
 * Does what a request wants of the stored entities. Throws a `VendorError` for what the vendor refuses: 404 for an entity that
 * is not there, 400 for a second one of the same identifier (409 for workspaces) and for an identifier of another form.
 * The identifiers' form is that of https://developer.harness.io/docs/platform/references/entity-identifier-reference/.
 */
export function storedOutcome(wanted: Wanted, question: Question, body: string, store: Store, now: number): Outcome {
  switch (wanted.operation) {
    case 'list':
      return list(wanted, question, store, now)
    case 'get':
      return get(wanted, question, store, now)
    case 'start':
      return start(wanted, question, store, now)
    case 'delete':
      return remove(wanted, question, store)
    default:
      return save(wanted, question, body, store, now)
  }
}

/** What the client that started an execution is told. */
export function started(v1: boolean, id: string): object {
  return v1
    ? { execution_details: { execution_id: id, status: 'RUNNING' } }
    : { planExecution: { uuid: id, status: 'RUNNING' } }
}

/** `id` of a list of executions is the pipeline whose executions are asked for. */
function list(wanted: Wanted, question: Question, store: Store, now: number): Outcome {
  const { path, query } = question
  const { kind, id } = wanted
  const term = new URLSearchParams(query).get('searchTerm')?.toLowerCase() ?? ''
  const all: object[] = []
  for (const stored of store.list(collection(wanted, question), kind)) {
    const { fields } = stored
    if (!`${fields.identifier}\n${fields.name}`.toLowerCase().includes(term)) continue
    if (kind !== 'execution') all.push(shown(path, kind, fields, stored))
    else if (id === undefined || fields['pipelineIdentifier'] === id) all.push(executionSummary(stored, now))
  }
  // The vendor lists executions with the latest first.
  return { page: pageOf(kind === 'execution' ? all.toReversed() : all, query, isV1(path)), isTagged: true }
}

function get(wanted: Wanted, question: Question, store: Store, now: number): Outcome {
  const stored = found(wanted, question, store)
  const data =
    wanted.kind === 'execution'
      ? { pipelineExecutionSummary: executionSummary(stored, now), executionGraph: null }
      : shownAlone(question.path, wanted.kind, stored)
  return { data, isTagged: true }
}

function start(wanted: Wanted, question: Question, store: Store, now: number): Outcome {
  const { fields } = found({ ...wanted, kind: 'pipeline' }, question, store)
  const name = collection(wanted, question)
  const uuid = randomUUID()
  const runSequence =
    1 + store.list(name, 'execution').filter((one) => one.fields['pipelineIdentifier'] === wanted.id).length
  const execution = { identifier: uuid, name: uuid, pipelineIdentifier: fields.identifier, pipelineName: fields.name }
  store.put(name, 'execution', { fields: { ...execution, runSequence }, createdAt: now, changedAt: now })
  return { data: started(isV1(question.path), uuid) }
}

function remove(wanted: Wanted, question: Question, store: Store): Outcome {
  const { path } = question
  const { kind } = wanted
  const stored = found(wanted, question, store)
  store.delete(collection(wanted, question), kind, stored.fields.identifier)
  const isSilent = kind === 'pipeline' || isWorkspaces(path)
  return { data: isV1(path) ? shown(path, kind, stored.fields, stored) : true, isSilent }
}

function save(wanted: Wanted, question: Question, body: string, store: Store, now: number): Outcome {
  const { kind, id, operation } = wanted
  if (Buffer.byteLength(body) >= KEPT_BYTES) {
    throw new VendorError(400, `The sandbox stores entities of less than ${KEPT_BYTES} bytes. This one is longer.`)
  }
  const fields = sentFields(body, kind, id ?? '')
  if (fields === null) throw new VendorError(400, `The body must be a ${kind} in JSON or YAML.`)
  const identifier = id ?? fields.identifier
  if (!/^[A-Za-z_][\w$]{0,127}$/.test(identifier)) {
    throw new VendorError(400, `identifier: must be 1 to 128 letters, digits, _ or $, and begin with no digit or $`)
  }
  const inBody = { org: wanted.org ?? text(fields, 'org'), project: wanted.project ?? text(fields, 'project') }
  const name = collection({ ...wanted, ...inBody }, question)
  const before = store.get(name, kind, identifier)
  if (operation === 'create' && before !== undefined) throw duplicate(kind, identifier, question.path)
  if (operation === 'update' && before === undefined) throw missing(kind, identifier)
  const yaml = isYaml(body) ? body : text(fields, 'pipeline_yaml')
  const stored = { fields: { ...fields, identifier }, yaml, createdAt: before?.createdAt ?? now, changedAt: now }
  if (!store.put(name, kind, stored)) {
    throw new VendorError(400, `There are as many ${kind}s as the sandbox holds. POST /reset on its control port.`)
  }
  return { data: shown(question.path, kind, stored.fields, stored), isNew: before === undefined }
}

/** The collection of one kind in one project. An older API's entity may name its project in its body. */
function collection({ kind, org = '', project = '' }: Wanted, { account }: Question): string {
  return JSON.stringify([account, org, project, kind])
}

function found(wanted: Wanted, question: Question, store: Store): Stored {
  const { kind, id = '' } = wanted
  const stored = store.get(collection(wanted, question), kind, id)
  if (stored === undefined) throw missing(kind, id)
  return stored
}

function missing(kind: string, identifier: string): VendorError {
  const named = identifier.slice(0, 128)
  return new VendorError(
    404,
    `${kind} with identifier [${named}] not found in this project`,
    'RESOURCE_NOT_FOUND_EXCEPTION',
  )
}

function duplicate(kind: string, identifier: string, path: string): VendorError {
  const message = `A ${kind} with identifier [${identifier}] already exists in this project`
  return new VendorError(isWorkspaces(path) ? 409 : 400, message, 'DUPLICATE_FIELD')
}

const BODY_FIELDS = { org: 'orgIdentifier', project: 'projectIdentifier', pipeline_yaml: 'pipeline_yaml' }

function text(fields: Fields, name: keyof typeof BODY_FIELDS): string | undefined {
  const value = fields[BODY_FIELDS[name]]
  return typeof value === 'string' && value !== '' ? value : undefined
}
