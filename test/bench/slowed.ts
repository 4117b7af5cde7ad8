import { Server } from 'node:http'

/** Loaded before a benchmarked program: makes every call cost 30 µs more, to see that `npm run bench -- --check` notices. */
const MORE_MS = 0.03
const { emit } = Server.prototype
Server.prototype.emit = function slowed(this: Server, event: string, ...args: unknown[]): boolean {
  if (event === 'request') for (const until = performance.now() + MORE_MS; performance.now() < until;);
  return emit.call(this, event, ...args)
} as typeof emit
