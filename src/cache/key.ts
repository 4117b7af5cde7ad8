import { hash } from 'node:crypto'

/**
 * The key of a stored answer. All answers of one path and account belong to one resource, whatever their query and client, so
 * that a write to the path invalidates all of them at once. The selector tells apart the answers of a resource that must not be
 * given in place of one another. Both are hashes, because paths and queries may hold secrets, and so may cookies.
 * No credential of the gateway is part of them.
 */
export interface Place {
  readonly resource: string
  readonly selector: string
}

export interface Asked {
  /** The name of the upstream and its URL, which a reload may change. */
  readonly upstream: string
  readonly url: string
  readonly account: AccountNamed
  /** The only client that may get the answer; undefined if all clients of the account share it. */
  readonly client: string | undefined
  /** `normalPath` is the normalized path, which names the resource. `target` is the path and query as they were sent. */
  readonly normalPath: string
  readonly target: string
  /** Names and values in turn of the fields that may tell the upstream who asks. They are the client's own. */
  readonly askers: readonly string[]
}

/** The account's name, and the vendor's id of it. A reload may change the id, and another id has other data. */
interface AccountNamed {
  readonly key: string
  readonly id: string | undefined
}

export function placeOf({ upstream, url, account, client, normalPath, target, askers }: Asked): Place {
  return {
    resource: resourceOf(upstream, url, account, normalPath),
    selector: digest(client === undefined ? 'account' : `client ${client}`, target, ...askers),
  }
}

export function resourceOf(upstream: string, url: string, { key, id = '' }: AccountNamed, normalPath: string): string {
  // Clients write the path of a collection with or without a slash at its end.
  return digest(upstream, url, key, id, normalPath.replace(/\/$/, ''))
}

/** The selector of an answer that depends on fields of the request (Vary, RFC 9111 §4.1). */
export function variantOf(selector: string, names: readonly string[], valueOf: (name: string) => string): string {
  return digest(selector, ...names.flatMap((name) => [name, valueOf(name)]))
}

/** The names in a Vary field, sorted and in lower case; undefined if there are none. */
export function varyNames(vary: string | undefined): string[] | undefined {
  const names = new Set((vary ?? '').split(',').map((name) => name.trim().toLowerCase()))
  names.delete('')
  return names.size === 0 ? undefined : [...names].toSorted()
}

/** Parts are joined by line ends. No part can hold one, so different parts never give the same text. */
function digest(...parts: readonly string[]): string {
  return hash('sha256', parts.join('\n'), 'base64url')
}
