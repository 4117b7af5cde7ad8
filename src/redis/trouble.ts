import { ReplyError } from 'ioredis'

/**
 * What Redis means where it refuses, by the first word of what it says, and what to do
 * (https://github.com/redis/redis/blob/7.0/src/server.c, createSharedObjects).
 */
const REFUSALS: Readonly<Record<string, string>> = {
  BUSY: 'a script of somebody keeps it busy',
  CLUSTERDOWN: 'parts of its cluster have no master',
  CROSSSLOT: 'it is a cluster: name its nodes in store.cluster',
  DENIED: 'it is in protected mode: it takes connections from its own machine only, until it has a password',
  LOADING: 'it still loads its data',
  MASTERDOWN: 'it is a replica that has lost its master',
  MISCONF: 'it can not write its data to disk, and takes no writes until it can',
  MOVED: 'it is a cluster: name its nodes in store.cluster',
  NOAUTH: 'it wants a password: set store.password',
  NOPERM: 'its ACL does not allow the user what the gateway does',
  NOREPLICAS: 'fewer replicas follow it than its min-replicas-to-write',
  OOM: 'its memory is full: raise its maxmemory',
  READONLY: 'it is a replica: another server is master now, or the address is that of a replica',
  UNBLOCKED: 'it has become a replica',
  WRONGPASS: 'it does not accept store.username and store.password',
}

/**
 * Answers of a server that is not the right one to ask. If the name or the proxy by which it was reached leads to another server by
 * now, a new connection finds that. LOADING: a replica loads what its new master sends. NOREPLICAS: so says a master that was
 * cut off from its replicas, one of which may be master now. Not BUSY, OOM, MISCONF, NOPERM or CLUSTERDOWN: those are of the
 * right one, and a new connection hears them again.
 */
const NOT_THE_ONE = new Set(['READONLY', 'MASTERDOWN', 'LOADING', 'UNBLOCKED', 'NOREPLICAS'])

/** Whether another connection may lead to a server that can do what was asked. */
export function isNotTheOne(error: Error): boolean {
  return NOT_THE_ONE.has(refusalOf(error.message))
}

/** Why Redis is of no use, as one clause, such as "refuses (OOM …)". Leaves out secret arguments that servers repeat. */
export function troubleOf(error: unknown): string {
  const { message, lastNodeError } = error as Error & { lastNodeError?: Error }
  if (lastNodeError !== undefined) return troubleOf(lastNodeError)
  const said = saidIn(message)
  const refusal = refusalOf(said)
  const meaning = REFUSALS[refusal]
  if (meaning !== undefined) return `refuses (${said.replace(/\.$/, '')}): ${meaning}`
  return error instanceof ReplyError ? `refuses (${said})` : `does not answer (${said})`
}

/** The message without the place in the script, and without the arguments, one of which may be a password. */
export function saidIn(message: string): string {
  return message
    .replace(/, with args beginning with: .*/s, '')
    .replace(/[. ]*script: [0-9a-f]{40}, .*/s, '')
    .replace(/^ERR Error running script .*?: -(?=[A-Z]+ )/s, '')
}

function refusalOf(message: string): string {
  return /^[A-Z]+\b/.exec(saidIn(message))?.[0] ?? ''
}
