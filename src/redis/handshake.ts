import type { Redis } from 'ioredis'

type Send = (this: Redis, ...args: unknown[]) => Promise<unknown>
type Told = (error: Error | null, info?: string) => void

/** The event of a connection whose server says that it has no password. Redis 6 and newer accept any password instead. */
export const NEEDLESS_PASSWORD = 'needless password'

/** The connections whose database was refused, and why. */
const REFUSED = new WeakMap<Redis, Error>()

/**
 * Stops ioredis from writing warnings to stderr with every connection. For some answers to its first commands it warns and
 * goes on. It takes any answer with "no password is set" for a needless password, which is wrong for a server in protected
 * mode. This rewords such answers: ioredis then either fails with them, or does not see them. See `handleAuthError` and
 * `_readyCheck` in ioredis 6.0.0; the latter passes a callback to `info`.
 *
 * Stops it, too, from going on in database 0 where the server refuses the one of the URL. That refusal takes the place of the answer
 * to `info`, so that the connection fails.
 */
export function correctHandshake({ prototype }: typeof Redis): void {
  const { auth, hello, info, select } = prototype as unknown as Record<'auth' | 'hello' | 'info' | 'select', Send>

  Object.assign(prototype, {
    async hello(this: Redis, args: unknown[]) {
      try {
        return await hello.call(this, args)
      } catch (error) {
        if (!isNeedless(error as Error)) throw restated(error as Error)
        this.emit(NEEDLESS_PASSWORD)
        // Says hello again without the password, in the same version of the protocol.
        return hello.call(this, args.slice(0, 1))
      }
    },
    async auth(this: Redis, ...args: unknown[]) {
      try {
        return await auth.call(this, ...args)
      } catch (error) {
        if (!isNeedless(error as Error)) throw restated(error as Error)
        this.emit(NEEDLESS_PASSWORD)
        return 'OK'
      }
    },
    async select(this: Redis, ...args: unknown[]) {
      REFUSED.delete(this)
      try {
        return await select.call(this, ...args)
      } catch (error) {
        // With NOPERM in it ioredis would go on after all.
        const message = (error as Error).message.replace(/^(NOPERM|ERR) /, 'SELECT ')
        const refused = new Error(message, { cause: error })
        REFUSED.set(this, refused)
        throw refused
      }
    },
    info(this: Redis, ...args: unknown[]) {
      const [told] = args as [Told | undefined]
      if (typeof told !== 'function') return info.call(this, ...args)
      const refused = REFUSED.get(this)
      if (refused !== undefined) {
        told(refused)
        return Promise.resolve()
      }
      // A user may be forbidden to ask whether Redis is still loading. Another command will then fail with LOADING.
      return info.call(this, (error: Error | null, text?: string) =>
        error?.message.includes('NOPERM') ? told(null, '') : told(error, text),
      )
    },
  })
}

/** Whether an answer says that the user has no password, so that none was needed. */
function isNeedless({ message }: Error): boolean {
  return (
    !message.startsWith('DENIED') &&
    /no password is set|without any password configured for the default user/.test(message)
  )
}

function restated(error: Error): Error {
  if (error.message.startsWith('DENIED'))
    return new Error('DENIED Redis is running in protected mode', { cause: error })
  if (error.message.includes("wrong number of arguments for 'auth'")) {
    return new Error('NOAUTH Redis 5 and older has no users: leave store.username out', { cause: error })
  }
  return error
}
