/** Makes a line safe to print: a path or a name may contain control characters, which a terminal would obey. */
export function printable(line: string): string {
  return line.replaceAll(/\p{Cc}/gu, '\uFFFD')
}

/** The same for a text of several lines. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n')
}

/** The JSON of a value on lines of its own. `JSON.stringify` leaves DEL and the C1 controls as they are, and a terminal obeys those, too. */
export function jsonOf(value: unknown, indent = 2): string {
  const json = JSON.stringify(value, undefined, indent)
  return `${json.replaceAll(/[\u007F-\u009F]/g, (control) => `\\u00${control.charCodeAt(0).toString(16)}`)}\n`
}
