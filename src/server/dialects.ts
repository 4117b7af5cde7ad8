import type { UpstreamConfig } from '../schema/schema.ts'
import { CODE_OF, type Failure, STATUS_OF } from '../gateway/failure.ts'

/** A refusal in JSON, as the clients of a vendor read errors. */
type Dialect = (failure: Failure) => object

/**
 * What SDKs of a vendor print of an error, with our own message in its place. Numbers stand where a typed client would not
 * read the error at all if there were words. The correlation id, and ours of the fields that a vendor has not, are added.
 */
const DIALECTS: Record<Exclude<UpstreamConfig['errors'], 'problem'>, Dialect> = {
  harness: ({ kind, message }) => ({
    status: 'ERROR',
    detailedMessage: message,
    responseMessages: [{ code: CODE_OF[kind], level: 'ERROR', message, failureTypes: [] }],
  }),
  // https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
  github: ({ kind }) => ({ status: String(STATUS_OF[kind]) }),
  // https://docs.slack.dev/apis/web-api/#slack-web-api__evaluating-responses; SDKs log what is in `messages`.
  slack: ({ kind, message }) => ({
    ok: false,
    error: SLACK_ERRORS[kind] ?? kind,
    response_metadata: { messages: [`[ERROR] ${message}`] },
  }),
  // https://developer.atlassian.com/cloud/jira/platform/rest/v3/intro/#status-codes (ErrorCollection)
  jira: ({ kind, message }) => ({ errorMessages: [message], errors: {}, status: STATUS_OF[kind] }),
  // https://developer.pagerduty.com/docs/errors
  pagerduty: ({ kind, message }) => ({ error: { code: STATUS_OF[kind], message, errors: [message] } }),
  // https://developers.cloudflare.com/fundamentals/api/reference/envelopes (errors have numbers)
  cloudflare: ({ kind, message }) => ({
    success: false,
    errors: [{ code: STATUS_OF[kind], message }],
    messages: [],
    result: null,
  }),
}

/** Those that Slack has words for, by which its SDKs tell errors. */
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
 * The status of a refusal in the vendor's shape. Slack's own refusals have 200, except for 429: its SDK repeats a call with any other
 * status for half an hour, without a word to its user. So only what may pass keeps its status for Slack's clients.
 */
export function errorStatus(dialect: UpstreamConfig['errors'] | undefined, { kind }: Failure): number {
  const status = STATUS_OF[kind]
  return dialect === 'slack' && status < 500 && status !== 429 ? 200 : status
}

/** The body of a refusal in JSON that is no problem of RFC 9457: in Harness's shape where no other is wanted. */
export function errorBody(
  dialect: UpstreamConfig['errors'] | undefined,
  failure: Failure,
  correlationId: string,
): object {
  const shape = DIALECTS[dialect === undefined || dialect === 'problem' ? 'harness' : dialect]
  return { ...shape(failure), code: CODE_OF[failure.kind], message: failure.message, correlationId }
}
