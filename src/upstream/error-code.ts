/** The code of a network error, such as ECONNRESET, in brackets behind a blank; nothing if it has none. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? ` (${code})` : ''
}
