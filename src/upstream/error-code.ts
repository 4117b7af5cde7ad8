/** undici gives an error of its parser no code. Its message ends with the reason. */
const OF_PARSER = /^Response does not match the HTTP\/1\.1 protocol \((.+)\)$/

/** The code of a network error after a space, such as ` (ECONNRESET)`, or the parser's reason; an empty string if it has none. */
export function codeOf(error: unknown): string {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown }
  const told = typeof code === 'string' ? code : OF_PARSER.exec(String(message))?.[1]
  return told === undefined ? '' : ` (${told})`
}
