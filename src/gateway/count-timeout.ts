import { BodyError } from '../upstream/body.ts'
import { ConnectTimeout } from '../upstream/connect.ts'
import type { Outcome } from './attempt.ts'
import type { Call } from './call.ts'
import type { Forwarded } from './forwarded.ts'
import type { Upstream } from './snapshot.ts'

/** Counts a timeout by its phase. That includes timeouts after the headers, of which no refusal tells the client. */
export function countTimeout(
  { id }: Call,
  { timeouts }: Upstream,
  result: Outcome | Forwarded | Pick<Outcome & { kind: 'body_failed' }, 'kind' | 'error'>,
): void {
  switch (result.kind) {
    case 'failed':
      if (result.ending.kind === 'timeout') timeouts[result.ending.phase].increment(id)
      else if (result.cause instanceof ConnectTimeout) timeouts[result.cause.phase].increment(id)
      break
    case 'broken_off':
      if (isOfClient(result.cause)) timeouts.client.increment(id)
      else if ((result.cause as { code?: string } | undefined)?.code === 'UND_ERR_BODY_TIMEOUT')
        timeouts.idle.increment(id)
      break
    case 'body_failed':
      if (isOfClient(result.error)) timeouts.client.increment(id)
      break
    default:
  }
}

/** Whether the client was too late with its body. */
function isOfClient(cause: unknown): boolean {
  return cause instanceof BodyError && (cause.kind === 'stalled' || cause.kind === 'slow')
}
