// A gateway inside another program: `npm install ./sluice-0.1.0.tgz` (see docs/package.md), then `npx node embed.mjs`.
// The program itself must run on Node 26 or later.
import { createServer } from 'node:http'
import { createGateway } from 'sluice'

// Stands for a vendor's API.
const vendor = createServer((request, response) => response.end(`key ${request.headers.authorization}`))
await new Promise((resolve) => vendor.listen(0, '127.0.0.1', resolve))

const config = (key) => ({
  server: { port: 0 },
  admin: { port: 0 },
  log: { level: 'silent' },
  store: { dir: '.sluice-embedded' },
  upstreams: {
    vendor: {
      url: `http://127.0.0.1:${vendor.address().port}`,
      accounts: { main: { credential: { header: 'authorization', value: key } } },
      limits: { read: [{ requests: 2, window: '60s' }], write: [] },
      queue: { maxWait: '0s' },
    },
  },
})

const gateway = createGateway(config('Bearer old'))
const { url } = await gateway.listen()
const ask = async () => {
  const response = await fetch(`${url}/vendor/things`)
  return response.ok ? response.text() : `${response.status} ${response.headers.get('x-sluice-error')}`
}
console.log(await ask())
console.log((await gateway.reload(config('Bearer new'))).result)
console.log(await ask())
console.log(await ask())
await gateway.close()
vendor.close()
