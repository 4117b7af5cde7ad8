/*
 * A client of the Harness API that knows nothing of Sluice: only its base URL points to the gateway.
 *
 *   HARNESS_BASE_URL=http://127.0.0.1:8080 HARNESS_ACCOUNT_ID=demo1234 node harness-client.mjs
 *
 * HARNESS_API_KEY is your Sluice key with a gateway that has `clients`, and Harness's own key without a gateway. The demo
 * needs none. It needs Node 18 or later.
 */
const { HARNESS_BASE_URL = 'http://127.0.0.1:8080', HARNESS_ACCOUNT_ID = 'demo1234', HARNESS_API_KEY } = process.env
const SCOPE = { accountIdentifier: HARNESS_ACCOUNT_ID, orgIdentifier: 'default', projectIdentifier: 'example' }
const PIPELINE = 'example_js'

/** Sends one request. There is no retry here: with a gateway in front, calls that may be retried already were. */
function call(method, path, { query, headers, ...rest } = {}) {
  const url = `${HARNESS_BASE_URL.replace(/\/$/, '')}${path}?${new URLSearchParams({ ...SCOPE, ...query })}`
  const key = HARNESS_API_KEY === undefined ? {} : { 'x-api-key': HARNESS_API_KEY }
  return fetch(url, { ...rest, method, headers: { ...key, ...headers }, signal: AbortSignal.timeout(60_000) })
}

/** What stands in the vendor's envelope. Throws for an error, with what the vendor says of it. */
async function dataOf(response) {
  const { data, message } = await response.json()
  if (!response.ok) throw new Error(`${response.status} ${message}`)
  return data
}

/** All pipelines of the project, page by page. */
async function* pipelines(size = 2) {
  let pages = 1
  for (let page = 0; page < pages; page++) {
    const data = await dataOf(await call('POST', '/pipeline/api/pipelines/list', { query: { page, size } }))
    yield* data.content
    pages = data.totalPages
  }
}

/** The pipeline, made if it is not there. Harness says 404 for one that is missing, and 400 for one that was just made. */
async function pipelineOrNew(identifier) {
  const path = `/pipeline/api/pipelines/${identifier}`
  let response = await call('GET', path)
  if (response.status === 404) {
    await response.body?.cancel()
    const body = `pipeline:\n  identifier: ${identifier}\n  name: Example in JavaScript\n`
    const headers = { 'content-type': 'application/yaml' }
    const created = await call('POST', '/pipeline/api/pipelines/v2', { body, headers })
    const { code, message } = await created.json()
    if (!created.ok && code !== 'DUPLICATE_FIELD') throw new Error(`${created.status} ${message}`)
    response = await call('GET', path)
  }
  return (await dataOf(response)).pipeline
}

/** Starts the pipeline and gives the status with which it ended. */
async function run(identifier, pollMs = 250) {
  const { planExecution } = await dataOf(await call('POST', `/pipeline/api/pipeline/execute/${identifier}`))
  for (;;) {
    const path = `/pipeline/api/pipelines/execution/v2/${planExecution.uuid}`
    const { status } = (await dataOf(await call('GET', path))).pipelineExecutionSummary
    if (!['Running', 'NotStarted', 'Queued'].includes(status)) return status
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

console.log(`pipeline: ${(await pipelineOrNew(PIPELINE)).name}`)
const names = []
for await (const { identifier } of pipelines()) names.push(identifier)
console.log(`pipelines: ${names.join(', ')}`)
const status = await run(PIPELINE)
console.log(`execution: ${status}`)
process.exitCode = status === 'Success' ? 0 : 1
