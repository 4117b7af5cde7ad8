/** The name in a Host field or a list of names: without port and trailing dot, in lower case. */
export function bareHost(host: string): string {
  return host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase()
}
