import { ioredis } from './client.ts'

/**
 * What each refusal of Redis means, by its first word, and what to do
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
  NOPERM: 'its ACL does not allow the user what the gateway does: docs/guarantees.md lists the commands',
  NOREPLICAS: 'fewer replicas follow it than its min-replicas-to-write',
  OOM: 'its memory is full: raise its maxmemory',
  READONLY: 'it is a replica: another server is master now, or the address is that of a replica',
  SELECT: 'it does not give the user the database that the url names',
  UNBLOCKED: 'it has become a replica',
  WRONGPASS: 'it does not accept store.username and store.password',
}

/** The same of the Redis that is home of all regions. */
const REFUSALS_OF_HOME: typeof REFUSALS = {
  ...REFUSALS,
  CROSSSLOT: 'it is a cluster, which can not be home',
  MOVED: 'it is a cluster, which can not be home',
  NOAUTH: 'it wants a password: set store.regions.home.password',
  WRONGPASS: 'it does not accept the username and password of store.regions.home',
}

/**
 * Refusals by which a server shows that it is not, or no longer, the master. The name or proxy may lead to another server by
 * now, which a new connection finds. LOADING comes from a replica that loads what its new master sends. NOREPLICAS comes from a
 * master that lost its replicas, one of which may be master now. BUSY, OOM, MISCONF, NOPERM and CLUSTERDOWN are left out: the
 * right server says them, and would say them again on a new connection.
 */
const NOT_THE_ONE = new Set(['READONLY', 'MASTERDOWN', 'LOADING', 'UNBLOCKED', 'NOREPLICAS'])

/** Whether another connection may lead to a server that can do what was asked. */
export function isNotTheOne(error: Error): boolean {
  return NOT_THE_ONE.has(refusalOf(error.message))
}

/** Why Redis can't be used, as one clause, such as "refuses (OOM …)". It leaves out arguments, which may be secret. */
export function troubleOf(error: unknown, meanings = REFUSALS): string {
  const { message, lastNodeError, previousErrors, errors } = error as Error & {
    lastNodeError?: Error
    previousErrors?: Error[]
    errors?: Error[]
  }
  // The first command of a transaction that was refused says more than the refusal of the transaction. Where a host has several
  // addresses, only the error of each says anything.
  const cause = lastNodeError ?? previousErrors?.[0] ?? errors?.[0]
  if (cause !== undefined) return troubleOf(cause, meanings)
  const said = saidIn(message)
  const refusal = refusalOf(said)
  const meaning = meanings[refusal]
  if (meaning !== undefined) return `refuses (${said.replace(/\.$/, '')}): ${meaning}`
  return error instanceof ioredis().ReplyError ? `refuses (${said})` : `does not answer (${said})`
}

/** The same of home. */
export function homeTroubleOf(error: unknown): string {
  return troubleOf(error, REFUSALS_OF_HOME)
}

/** The message without the place in the script and without the arguments, since an argument may be a password. */
export function saidIn(message: string): string {
  return message
    .replace(/, with args beginning with: .*/s, '')
    .replace(/[. ]*script: [0-9a-f]{40}, .*/s, '')
    .replace(/^ERR Error running script .*?: -(?=[A-Z]+ )/s, '')
}

function refusalOf(message: string): string {
  // What a script may not do is told without the word of the refusal.
  if (/^ERR (ACL failure|The user executing the script)/.test(message)) return 'NOPERM'
  return /^[A-Z]+\b/.exec(saidIn(message))?.[0] ?? ''
}
