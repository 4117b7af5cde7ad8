import { type Findings, findings } from './causes.ts'
import type { AdminParts } from './management.ts'
import { type UsageNow, usageNow } from './usage-view.ts'

/** What the live page shows. */
export interface PageState extends Findings {
  readonly usage: UsageNow
}

/** Of each process so many clients and limits are asked for. */
const MOST_USES = 200

export async function pageState(parts: AdminParts): Promise<PageState> {
  const quota = parts.status.quota()
  const [found, usage] = await Promise.all([
    findings(parts, (question) => parts.requests.ask(question), quota),
    usageNow(parts, MOST_USES, quota),
  ])
  return { ...found, usage }
}
