/** The code of a network error after a space, such as ` (ECONNRESET)`; an empty string if it has none. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? ` (${code})` : ''
}
