/** A shorter text is not looked for, because any answer may contain it by chance. */
const SHORTEST = 8

/**
 * The forms in which an upstream may repeat a text that it was sent: literally, in Base64 at each of the three
 * alignments, and escaped for URLs, JSON and HTML. If the value begins with a scheme, such as `Bearer`, only the rest
 * is looked for.
 */
export function formsOf(exposed: string): string[] {
  const [, scheme = '', value = exposed] = /^([A-Za-z][\w-]*) +(\S.*)$/.exec(exposed) ?? []
  const secrets = [value]
  if (scheme.toLowerCase() === 'basic') {
    const [, password] = /^[^:]*:(.*)$/.exec(Buffer.from(value, 'base64').toString()) ?? []
    if (password !== undefined) secrets.push(password)
  }
  // A value in the query was sent URL-encoded, and may be encoded once more.
  secrets.push(...secrets.map(encodeURIComponent))
  const forms = secrets.filter(({ length }) => length >= SHORTEST).flatMap(encodingsOf)
  return [...new Set(forms)].filter(({ length }) => length >= SHORTEST)
}

function encodingsOf(text: string): string[] {
  const inUrl = encodeURIComponent(text)
  const inForm = new URLSearchParams({ '': text }).toString().slice(1)
  const inJson = JSON.stringify(text).slice(1, -1)
  const inHtml = text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
  const base64 = [0, 1, 2].map((offset) => base64At(text, offset))
  return [
    text,
    ...base64,
    ...base64.map((form) => form.replaceAll('+', '-').replaceAll('/', '_')),
    ...[inUrl, inForm].flatMap((form) => [form, form.replaceAll(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase())]),
    inJson,
    inJson.replaceAll('/', String.raw`\/`),
    inHtml,
  ]
}

/** The Base64 characters that depend on this text alone, if the number of bytes before it is `offset` modulo three. */
function base64At(text: string, offset: number): string {
  const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(text)])
  const from = Math.ceil((offset * 8) / 6)
  return bytes.toString('base64').slice(from, Math.floor((bytes.length * 8) / 6))
}
