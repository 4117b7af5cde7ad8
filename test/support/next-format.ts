/** `node --import` this: the program is a release whose ledger has the next format. */
import { registerHooks } from 'node:module'

const FORMAT = /^const FORMAT = (\d+)$/m

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context)
    if (!url.endsWith('ledger/redis/redis-ledger.ts')) return loaded
    const source = Buffer.from(loaded.source as Uint8Array).toString()
    if (!FORMAT.test(source)) throw new Error('redis-ledger.ts has no FORMAT any more: bring this up to date')
    return { ...loaded, source: source.replace(FORMAT, (_, format) => `const FORMAT = ${Number(format) + 1}`) }
  },
})
