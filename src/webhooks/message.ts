import type { Told } from './episodes.ts'

/** What a receiver is told. In the format `json` this is the body. */
export interface Message {
  /** The same whenever the message is sent again, because no answer came. */
  readonly id: string
  readonly status: 'firing' | 'resolved'
  readonly event: string
  /** The same for all messages about one thing. */
  readonly key: string
  readonly severity: 'failing' | 'warning'
  readonly summary: string
  readonly whatToDo: string
  /** What to check first, second and third. */
  readonly runbook: string | null
  /** The latest call that shows it. */
  readonly correlationId: string | null
  readonly instance: string
  readonly webhook: string
  readonly startedAt: string
  readonly time: string
}

/** Where it is in the tree, if nobody says where it is served. */
const RUNBOOK = 'docs/runbook.md'

export function messageOf(
  { status, key, condition, startedAt, at }: Told,
  ids: Pick<Message, 'id' | 'instance' | 'webhook'>,
  page: string = RUNBOOK,
): Message {
  const { event, severity, what, todo, alert, correlationId = null } = condition
  const isOver = status === 'resolved'
  return {
    id: ids.id,
    status,
    event,
    key,
    severity,
    summary: isOver ? `Resolved: ${what}` : what,
    whatToDo: isOver ? 'Nothing: it is over.' : todo,
    runbook: alert === undefined ? null : `${page}#${alert.toLowerCase()}`,
    correlationId,
    instance: ids.instance,
    webhook: ids.webhook,
    startedAt: new Date(startedAt).toISOString(),
    time: new Date(at).toISOString(),
  }
}

/** The body for an incoming webhook of Slack, and of chats that take the same (https://docs.slack.dev/messaging/formatting-message-text). */
export function slackBody(message: Message, dropped: number): object {
  const { status, severity, summary, whatToDo, runbook, correlationId, instance } = message
  const mark = severity === 'failing' ? ':red_circle: *Failing:*' : ':warning: *Warning:*'
  const lines = [
    ...(status === 'resolved'
      ? [`:white_check_mark: ${escaped(summary)}`]
      : [`${mark} ${escaped(summary)}`, escaped(whatToDo)]),
    [
      ...(runbook === null ? [] : [runbook.startsWith('http') ? `<${runbook}|Runbook>` : `see ${runbook}`]),
      ...(correlationId === null ? [] : [`call \`${escaped(correlationId).replaceAll('`', "'")}\``]),
      escaped(instance),
      ...(dropped === 0 ? [] : [`${dropped} messages before were dropped`]),
    ].join(' · '),
  ]
  return { text: lines.join('\n') }
}

/** Names and ids may be texts of callers. Otherwise Slack would call everybody for <!channel>, and Mattermost for @channel. */
function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll(/@(?=all|channel|here)/gi, '@\u200B')
}
