import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The checkout's folder, without a slash at its end. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

export function readText(path: string): string {
  return readFileSync(`${ROOT}/${path}`, 'utf8')
}

/**
 * Puts what is true on this machine in the place of what is true where a file is deployed. Throws if something that should
 * be replaced does not occur, so that a test never runs against the usual ports by mistake.
 */
export function adapt(text: string, replacements: Readonly<Record<string, string>>): string {
  let adapted = text
  for (const [from, to] of Object.entries(replacements)) {
    if (!text.includes(from)) throw new Error(`"${from}" does not occur in: ${text}`)
    adapted = adapted.replaceAll(from, to)
  }
  return adapted
}
