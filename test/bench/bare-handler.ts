import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'
import { Pool } from 'undici'

/** The plugin's handler hook and undici's dispatch, and nothing else: what no gateway built on the two can be cheaper than. */
const app = Fastify()
const pool = new Pool(process.env['UPSTREAM'] as string, { connections: 64, allowH2: false })
await app.register(httpProxy, {
  upstream: 'http://upstream.invalid',
  handler(request, reply) {
    reply.hijack()
    const { raw: response } = reply
    const { url = '', rawHeaders } = request.raw
    const headers = rawHeaders.filter((_, i) => !/^(host|connection)$/i.test(rawHeaders[i - (i % 2)]!))
    pool.dispatch(
      { path: url.slice('/harness'.length), method: 'GET', headers },
      {
        onRequestStart() {},
        onResponseStart(_, status, fields) {
          delete fields.connection
          response.writeHead(status, fields)
        },
        onResponseData(_, chunk) {
          response.write(chunk)
        },
        onResponseEnd() {
          response.end()
        },
        onResponseError() {
          response.destroy()
        },
      },
    )
  },
})
process.send?.({ url: await app.listen({ host: '127.0.0.1', port: 0 }) })
