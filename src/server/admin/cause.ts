import type { WebhookEvent } from '../../schema/webhook-schema.ts'

/** Something that is wrong now, or soon will be. */
export interface Cause {
  readonly severity: 'failing' | 'warning'
  readonly what: string
  readonly todo: string
  /** The event by which webhooks tell of it; undefined if they do not. */
  readonly event?: WebhookEvent | undefined
  /** Whom it is about, in words that stay the same while it lasts. */
  readonly about: string
  /** The alert for it, which the runbook has. */
  readonly alert?: string
  /** The latest call that shows it. */
  readonly correlationId?: string
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
