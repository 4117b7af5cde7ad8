/** A text of a URL without its escapes; as it is, if they are malformed. */
export function decoded(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Whether all escapes of a text are well-formed. The result is compared, because a bundler leaves out a call whose result nobody uses. */
export function isDecodable(text: string): boolean {
  try {
    return decodeURIComponent(text) !== undefined
  } catch {
    return false
  }
}
