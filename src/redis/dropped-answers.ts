import type { Redis } from 'ioredis'

/**
 * The commands that ioredis 6.0.0 also sends by itself, without a look at the answer: SUBSCRIBE with each new connection, and ASKING before
 * a command whose slot is moving to another node.
 */
const SENT_BY_ITSELF = ['subscribe', 'asking'] as const

/**
 * Makes an error of such a command harmless where nobody catches it. It would end the process: where an ACL forbids the command, or the
 * connection breaks before the answer. Whoever sends the command still gets the error.
 */
export function forgiveDroppedAnswers({ prototype }: typeof Redis): void {
  const commands = prototype as unknown as Record<string, (this: Redis, ...args: unknown[]) => Promise<unknown>>
  for (const name of SENT_BY_ITSELF) {
    const send = commands[name]!
    commands[name] = function (...args) {
      const answer = send.apply(this, args)
      answer.catch(() => undefined)
      return answer
    }
  }
}
