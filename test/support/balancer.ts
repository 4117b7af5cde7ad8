import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { text } from 'node:stream/consumers'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { freePort } from './find-redis.ts'
import { newFolder } from './gateway.ts'

/** A place behind the balancer, which a gateway may take: the ports at which the balancer looks for one. */
export interface Slot {
  readonly port: number
  readonly adminPort: number
}

/**
 * HAProxy in front of so many slots. It asks /readyz four times a second, and lets one bad answer pass. Unless `isRetrying`, it tries
 * no call a second time, at no other gateway either, so that its clients see each call that finds no listener.
 */
export async function startBalancer(places: number, { isRetrying = false } = {}) {
  const slots: Slot[] = []
  for (let i = 0; i < places; i++) slots.push({ port: await freePort(), adminPort: await freePort() })
  const port = await freePort()
  const folder = newFolder()
  const control = join(folder, 'control')
  const lines = [
    'global',
    `  stats socket ${control} mode 600 level user`,
    'defaults',
    '  mode http',
    ...(isRetrying ? ['  retries 3', '  option redispatch 1'] : ['  retries 0']),
    ...['connect 10s', 'check 10s', 'client 60s', 'server 60s'].map((timeout) => `  timeout ${timeout}`),
    'listen balancer',
    `  bind 127.0.0.1:${port}`,
    '  balance roundrobin',
    '  option httpchk GET /readyz',
    '  default-server check inter 250ms fall 2 rise 1',
    ...slots.map((slot, i) => `  server ${i} 127.0.0.1:${slot.port} port ${slot.adminPort}`),
    '',
  ]
  writeFileSync(join(folder, 'haproxy.cfg'), lines.join('\n'))
  const haproxy = spawn('haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')], { stdio: 'ignore' })
  const ended = once(haproxy, 'exit')
  onTestFinished(async () => {
    haproxy.kill('SIGKILL')
    await ended
  })
  return {
    url: `http://127.0.0.1:${port}`,
    slots,
    /** The numbers of the slots that get calls now. */
    async up(): Promise<number[]> {
      const table = await ask(control, 'show stat -1 4 -1').catch(() => '')
      const rows = table.split('\n').map((line) => line.split(','))
      return rows.filter((row) => row[17]?.startsWith('UP')).map((row) => Number(row[1]))
    },
  }
}

async function ask(path: string, command: string): Promise<string> {
  const socket = createConnection(path)
  socket.write(`${command}\n`)
  return text(socket)
}
