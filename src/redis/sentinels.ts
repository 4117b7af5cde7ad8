import type { Redis } from 'ioredis'

type Address = Readonly<{ host: string; port: number }>

/* Internal names of ioredis 6.0.0, whose version is pinned; the tests fail if they change. */

export interface SentinelConnector {
  readonly options: { readonly name: string }
  resolve(sentinel: Address): Promise<Address | null>
  check(info: { role: string }): boolean
  /** Where the master is to which it connects. */
  master?: string
}

export interface FailoverDetector {
  readonly connector: SentinelConnector
  readonly sentinels: readonly { readonly address: Address; readonly client: Redis }[]
  readonly isDisconnected: boolean
  subscribe(): Promise<void>
  disconnect(): void
}

const NEWS = '+switch-master'

/**
 * Makes ioredis leave a server that is master no longer. It asks one sentinel, which may not know the new master yet, and listens to
 * the sentinels only then. It would never hear what they told in between. An old master that lives takes writes until the sentinels
 * make it a replica, which they do ten seconds later. So two gateways could charge two masters, and each of these would grant the
 * whole quota. Therefore each sentinel is asked once it is listened to, and the server is left if most sentinels name another.
 *
 * It also makes ioredis stay where it is if a sentinel tells late that this server is master, or tells of a master of another name.
 */
export function followSentinels(connector: SentinelConnector, detector: FailoverDetector): void {
  const { resolve } = connector
  connector.resolve = async function (this: SentinelConnector, sentinel) {
    const found = await resolve.call(this, sentinel)
    if (found !== null) this.master = nameOf(found)
    return found
  }
  detector.subscribe = async function (this: FailoverDetector) {
    const named = new Map<Address, string>()
    const ask = async (sentinel: Address, client: Redis): Promise<void> => {
      await client.subscribe(NEWS)
      const found = await resolve.call(this.connector, sentinel)
      if (found !== null) named.set(sentinel, nameOf(found))
      const others = [...named.values()].filter((name) => name !== this.connector.master)
      if (this.isDisconnected || others.length <= this.sentinels.length / 2) return
      // So that another sentinel is asked first the next time.
      this.connector.check({ role: 'none' })
      this.disconnect()
    }
    for (const { address, client } of this.sentinels) {
      // It is tried again. Without a listener ioredis would write each attempt that fails to stderr.
      client.on('error', () => undefined)
      client.on('message', (_, message: string) => {
        const [name, , , host, port] = message.split(' ')
        const isOther = name === this.connector.options.name && this.connector.master !== `${host}:${port}`
        if (isOther && !this.isDisconnected) this.disconnect()
      })
      client.on('ready', () => void ask(address, client).catch(() => undefined))
      client.subscribe(NEWS).catch(() => undefined)
    }
  }
}

function nameOf({ host, port }: Address): string {
  return `${host}:${port}`
}
