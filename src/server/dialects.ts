import type { UpstreamConfig } from '../schema/schema.ts'
import { type Failure, FAILURES } from '../gateway/failure.ts'

/** Makes the JSON of a refusal in the shape in which a vendor's clients read errors. */
type Dialect = (failure: Failure) => object

/**
 * The shape in which each vendor's SDKs read errors, with the gateway's message where they print one. A field that is a number
 * in the vendor's API is a number here too: a typed client could not parse the error otherwise. `errorBody` adds the code, the
 * message and the correlation id to every shape.
 */
const DIALECTS: Record<Exclude<UpstreamConfig['errors'], 'problem'>, Dialect> = {
  harness: ({ kind, message }) => ({
    status: 'ERROR',
    detailedMessage: message,
    responseMessages: [{ code: FAILURES[kind].code, level: 'ERROR', message, failureTypes: [] }],
  }),
  // https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
  github: ({ kind }) => ({ status: String(FAILURES[kind].status) }),
  // https://docs.slack.dev/apis/web-api/#slack-web-api__evaluating-responses; SDKs log what is in `messages`.
  slack: ({ kind, message }) => ({
    ok: false,
    error: SLACK_ERRORS[kind] ?? kind,
    response_metadata: { messages: [`[ERROR] ${message}`] },
  }),
  // https://developer.atlassian.com/cloud/jira/platform/rest/v3/intro/#status-codes (ErrorCollection)
  jira: ({ kind, message }) => ({ errorMessages: [message], errors: {}, status: FAILURES[kind].status }),
  // https://developer.pagerduty.com/docs/errors
  pagerduty: ({ kind, message }) => ({ error: { code: FAILURES[kind].status, message, errors: [message] } }),
  // https://developers.cloudflare.com/fundamentals/api/reference/envelopes (errors have numbers)
  cloudflare: ({ kind, message }) => ({
    success: false,
    errors: [{ code: FAILURES[kind].status, message }],
    messages: [],
    result: null,
  }),
  // https://developer.atlassian.com/cloud/confluence/rest/v1/intro/#error-responses
  confluence: ({ kind }) => ({ statusCode: FAILURES[kind].status }),
  // https://docs.gitlab.com/api/rest/troubleshooting/: all is in `message`, which every shape has
  gitlab: () => ({}),
  // https://shopify.dev/docs/api/admin-rest#status_and_error_codes
  shopify: ({ message }) => ({ errors: message }),
  // https://developers.hubspot.com/docs/api-reference/error-handling
  hubspot: ({ kind }) => ({ status: 'error', category: FAILURES[kind].code }),
  // https://docs.datadoghq.com/api/latest/: APIErrorResponse
  datadog: ({ message }) => ({ errors: [message] }),
  // SDKs read these four: https://github.com/openai/openai-node/blob/master/src/core/error.ts
  openai: ({ kind, message }) => {
    const status = FAILURES[kind].status
    if (status === 429) return { error: { message, type: 'requests', param: null, code: 'rate_limit_exceeded' } }
    return {
      error: { message, type: status < 500 ? 'invalid_request_error' : 'server_error', param: null, code: kind },
    }
  },
  // https://platform.claude.com/docs/en/api/errors
  anthropic: ({ kind, message }) => ({
    type: 'error',
    error: { type: ANTHROPIC_TYPES[FAILURES[kind].status] ?? 'api_error', message },
  }),
}

const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
}

/** The kinds for which Slack has an error code of its own, by which its SDKs recognise the error. */
const SLACK_ERRORS: Partial<Record<Failure['kind'], string>> = {
  unauthenticated: 'invalid_auth',
  forbidden: 'no_permission',
  account_mismatch: 'no_permission',
  too_many_attempts: 'ratelimited',
  quota_exhausted: 'ratelimited',
  queue_full: 'ratelimited',
  share_exceeded: 'ratelimited',
}

/**
 * The status of a refusal in the vendor's shape. Slack itself refuses with 200 or 429. Its SDK repeats a call with any other
 * status for half an hour and does not tell its user. So Slack's clients get 200 for a refusal, unless a later call may succeed:
 * then the refusal keeps its 429 or 5xx.
 */
export function errorStatus(dialect: UpstreamConfig['errors'] | undefined, { kind }: Failure): number {
  const status = FAILURES[kind].status
  return dialect === 'slack' && status < 500 && status !== 429 ? 200 : status
}

/**
 * The JSON body of a refusal in the vendor's shape, or in Harness's where none is configured. respond.ts makes the problem details
 * of RFC 9457.
 */
export function errorBody(
  dialect: UpstreamConfig['errors'] | undefined,
  failure: Failure,
  correlationId: string,
): object {
  const shape = DIALECTS[dialect === undefined || dialect === 'problem' ? 'harness' : dialect]
  return { ...shape(failure), code: FAILURES[failure.kind].code, message: failure.message, correlationId }
}
