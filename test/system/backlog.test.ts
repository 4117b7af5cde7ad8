import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { harnessConfig, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { startProcess } from '../support/process.ts'

/** More than the 511 that Node lets wait to be accepted unless told otherwise. */
const CONNECTIONS = 800
const mostOfSystem = (): number => Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'))
const mayTest = process.platform === 'linux' && mostOfSystem() > CONNECTIONS

it.runIf(mayTest).each([1, 2])(
  'lets a burst of connections wait while it stands still, and answers all of them, with workers: %i',
  async (workers) => {
    const upstream = await startUpstream((_, response) => void response.end('{}'))
    const limits = { read: [{ requests: 10 * CONNECTIONS, window: '60s' }] }
    const config = harnessConfig(upstream.url, { limits }, { server: { port: 0, workers } })
    const gateway = await startProcess(config)
    expect((await call(gateway.url, '/harness/ng/api/projects')).status).toBe(200)
    gateway.kill('SIGSTOP')
    await expect.poll(() => readFileSync(`/proc/${gateway.child.pid}/stat`, 'utf8')).toMatch(/\) T /)

    const { hostname, port } = new URL(gateway.url)
    let connected = 0
    let answered = 0
    const sockets = Array.from({ length: CONNECTIONS }, () => {
      const socket = connect(Number(port), hostname, () => connected++)
      socket.on('error', () => undefined)
      socket.once('data', (text) => (answered += String(text).startsWith('HTTP/1.1 200') ? 1 : 0))
      socket.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n')
      return socket
    })
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
    })
    await expect.poll(() => connected).toBe(CONNECTIONS)
    gateway.kill('SIGCONT')
    await expect.poll(() => answered).toBe(CONNECTIONS)
  },
)
