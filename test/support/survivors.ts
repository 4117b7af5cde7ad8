import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import type { HeapProfiler } from 'node:inspector'
import { join } from 'node:path'
import { expect, inject } from 'vitest'
import { stringify } from 'yaml'
import { newFolder } from './gateway.ts'
import { Program } from './process.ts'

/** At most this part of the objects is looked at, one for so many bytes. */
const SAMPLED_BYTES = 1_024

export interface Survivors {
  readonly bytesPerCall: number
  /** The functions that made most of it, for whoever has to find the reason. */
  readonly madeBy: string
}

/** A gateway process whose heap can be looked into. */
export async function startWithInspector(config: object) {
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const command = [process.execPath, '--inspect=127.0.0.1:0', '--expose-gc', inject('program')]
  const program = new Program(['start'], { cwd, command })
  const { url } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string }
  // Another pipe than that of the line above, so it may come later.
  await expect.poll(() => program.stderr).toMatch(/ws:\S+\s/)
  const inspector = await connectInspector(/ws:\S+/.exec(program.stderr)![0])

  /**
   * What `calls` calls allocate that is not gone after some minor collections, so that the old generation gets it. Before that, all
   * that lives while `run` makes calls is in the old generation already.
   */
  async function survivorsOf(calls: number, run: (calls: number) => Promise<void>): Promise<Survivors> {
    await run(calls)
    // The first moves what is alive into the old generation.
    for (let i = 0; i < 2; i++) await inspector('HeapProfiler.collectGarbage')
    await run(calls / 4)
    await inspector('HeapProfiler.startSampling', {
      samplingInterval: SAMPLED_BYTES,
      includeObjectsCollectedByMajorGC: true,
      includeObjectsCollectedByMinorGC: false,
    })
    for (let i = 0; i < 4; i++) {
      await run(calls / 4)
      await inspector('Runtime.evaluate', { expression: 'gc({ type: "minor" })' })
    }
    await inspector('Runtime.evaluate', { expression: 'gc({ type: "minor" })' })
    const { profile } = (await inspector('HeapProfiler.stopSampling')) as {
      profile: HeapProfiler.SamplingHeapProfile
    }
    return survivorsIn(profile, calls)
  }
  return { url, survivorsOf }
}

async function connectInspector(url: string): Promise<(method: string, params?: object) => Promise<unknown>> {
  const socket = new WebSocket(url)
  let asked = 0
  const waiting: ((result: unknown) => void)[] = []
  socket.addEventListener('message', ({ data }) => {
    const { id, result } = JSON.parse(String(data)) as { id?: number; result: unknown }
    if (id !== undefined) waiting[id]!(result)
  })
  await once(socket, 'open')
  return (method, params = {}) =>
    new Promise((resolve) => {
      waiting[asked] = resolve
      socket.send(JSON.stringify({ id: asked++, method, params }))
    })
}

function survivorsIn({ head }: HeapProfiler.SamplingHeapProfile, calls: number): Survivors {
  const made = new Map<string, number>()
  const look = ({ callFrame, selfSize, children }: HeapProfiler.SamplingHeapProfileNode): void => {
    made.set(callFrame.functionName, (made.get(callFrame.functionName) ?? 0) + selfSize / calls)
    children.forEach(look)
  }
  look(head)
  const most = [...made].toSorted(([, a], [, b]) => b - a)
  return {
    bytesPerCall: Math.round(most.reduce((sum, [, bytes]) => sum + bytes, 0)),
    madeBy: most
      .slice(0, 8)
      .map(([name, bytes]) => `${name || '(anonymous)'} ${bytes.toFixed(0)}`)
      .join(', '),
  }
}

const CONNECTIONS = 16
export const keptAlive = (): Agent => new Agent({ keepAlive: true, maxSockets: CONNECTIONS })

/** Sends so many requests over a few connections that stay open. Throws if one has another status. */
export async function sendMany(
  agent: Agent,
  base: string,
  calls: number,
  status: number,
  requestOf: (number: number) => { path: string; headers: Record<string, string> },
): Promise<void> {
  let sent = 0
  const client = async (): Promise<void> => {
    while (sent < calls) {
      const { path, headers } = requestOf(sent++)
      const [response] = await once(request(base + path, { agent, headers }).end(), 'response')
      await once(response.resume(), 'end')
      if (response.statusCode !== status) throw new Error(`${path} was answered ${response.statusCode}`)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, client))
}
