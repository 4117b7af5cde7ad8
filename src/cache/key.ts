import { hash } from 'node:crypto'

/**
 * Where answers are kept. All of one path at one account are one resource, whatever the query and whoever asks, so that a
 * write to it makes all of them invalid at once. Within it, a selector tells answers apart that must not stand in for one
 * another. Both are hashes, since paths and queries may hold secrets; no credential is in them.
 */
export interface Place {
  readonly resource: string
  readonly selector: string
}

export interface Asked {
  /** Name of the upstream, and where it is: after a change of the configuration it may be somewhere else. */
  readonly upstream: string
  readonly url: string
  readonly account: string
  /** Name of the client whose own the answer is; undefined if all clients of the account share it. */
  readonly client: string | undefined
  /** The path that a resource goes by, and what was asked for to the letter. */
  readonly normalPath: string
  readonly target: string
}

export function placeOf({ upstream, url, account, client, normalPath, target }: Asked): Place {
  return {
    resource: resourceOf(upstream, url, account, normalPath),
    selector: digest(client === undefined ? 'account' : `client ${client}`, target),
  }
}

export function resourceOf(upstream: string, url: string, account: string, normalPath: string): string {
  // Clients may write a collection with or without a slash at its end.
  return digest(upstream, url, account, normalPath.replace(/\/$/, ''))
}

/** The selector of one of several answers, by the fields of the request on which it depends. */
export function variantOf(selector: string, names: readonly string[], valueOf: (name: string) => string): string {
  return digest(selector, ...names.flatMap((name) => [name, valueOf(name)]))
}

/** The fields that an answer says it depends on, in one order; undefined if on none. */
export function varyNames(vary: string | undefined): string[] | undefined {
  const names = new Set((vary ?? '').split(',').map((name) => name.trim().toLowerCase()))
  names.delete('')
  return names.size === 0 ? undefined : [...names].toSorted()
}

/** No part can hold a line end, so none can pass for two. */
function digest(...parts: readonly string[]): string {
  return hash('sha256', parts.join('\n'), 'base64url')
}
