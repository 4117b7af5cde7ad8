/** Whether it may name a request in a log, a header or a URL: 1 to 128 visible ASCII characters. */
export function isRequestId(text: string): boolean {
  return /^[\x21-\x7e]{1,128}$/.test(text)
}
