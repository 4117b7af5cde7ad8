/** A shorter one is no credential, but might be a word of any text. */
const SHORTEST = 8

/**
 * The forms in which a text that an upstream was sent may come back: as it is, in Base64 wherever in it the text begins, and
 * as it is written in URLs, JSON and HTML. Of a value with a scheme it is what comes behind that.
 */
export function formsOf(exposed: string): string[] {
  const [, scheme = '', value = exposed] = /^([A-Za-z][\w-]*) +(\S.*)$/.exec(exposed) ?? []
  const secrets = [value]
  if (scheme.toLowerCase() === 'basic') {
    const [, password] = /^[^:]*:(.*)$/.exec(Buffer.from(value, 'base64').toString()) ?? []
    if (password !== undefined) secrets.push(password)
  }
  // One in the query was sent in that form, and may be encoded once more.
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
    ...[inUrl, inForm].flatMap((form) => [form, lowerEscapes(form)]),
    inJson,
    inJson.replaceAll('/', String.raw`\/`),
    inHtml,
  ]
}

/** What Base64 makes of the text alone, when so many bytes more than a multiple of three stand before it. */
function base64At(text: string, offset: number): string {
  const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(text)])
  const from = Math.ceil((offset * 8) / 6)
  return bytes.toString('base64').slice(from, Math.floor((bytes.length * 8) / 6))
}

function lowerEscapes(text: string): string {
  return text.replaceAll(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase())
}
