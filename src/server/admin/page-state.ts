import { type Findings, findings } from './causes.ts'
import type { AdminParts } from './management.ts'
import type { UsageNow } from './usage-view.ts'

/** What the live page shows. */
export interface PageState extends Findings {
  readonly usage: UsageNow
}

export async function pageState(parts: AdminParts, used: Promise<UsageNow>): Promise<PageState> {
  const [found, usage] = await Promise.all([findings(parts, (question) => parts.requests.ask(question)), used])
  return { ...found, usage }
}
