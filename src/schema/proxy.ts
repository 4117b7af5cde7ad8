import { isDecodable } from '../http/decode.ts'
import { hasPort } from './schema-parts.ts'
import type { Secret } from './secret.ts'

/** Says where a proxy is, and how to log in to it, each time that it is asked: its secret may change meanwhile. */
export function proxyOf(proxy: Secret | undefined): (() => URL) | undefined {
  if (proxy === undefined) return undefined
  proxy.whyNot = whyNoProxy
  return () => new URL(proxy.reveal())
}

/** Why a text names no proxy; undefined if it does. The reason repeats nothing of the text, which may hold a password. */
export function whyNoProxy(text: string): string | undefined {
  return isProxyUrl(text)
    ? undefined
    : 'must be the URL of a proxy such as http://user:password@host:3128, without a path'
}

function isProxyUrl(text: string): boolean {
  if (!hasPort(text)) return false
  const { protocol, pathname, search, hash, username, password } = new URL(text)
  if (!isDecodable(username + password)) return false
  return /^https?:$/.test(protocol) && pathname === '/' && search === '' && hash === ''
}
