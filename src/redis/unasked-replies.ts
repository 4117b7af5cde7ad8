/** What ioredis does with each reply. Internal names of ioredis 6.0.0, whose version is pinned; the tests fail if they change. */
export interface ReplyHandler {
  readonly redis: { readonly commandQueue: { readonly length: number } }
  dispatch(handle: () => void): void
  shiftCommand(reply: unknown): unknown
}

/**
 * Makes ioredis give up a connection on which something comes that nobody asked for, or that makes no sense where it comes.
 * Nothing behind it can be trusted. ioredis itself goes on, and throws where nobody can catch it if the reply is null, which ends
 * the process; and 13 bytes with a wrong length are then read again and again without end. Listeners of messages may not
 * throw: their connection would be given up, too.
 */
export function refuseUnaskedReplies(handler: ReplyHandler): void {
  const { shiftCommand } = handler
  handler.dispatch = (handle) => handle()
  handler.shiftCommand = function (this: ReplyHandler, reply) {
    if (this.redis.commandQueue.length === 0) throw new Error('Redis sent a reply that nobody asked for')
    return shiftCommand.call(this, reply)
  }
}
