/** Loaded before a benchmarked program: profiles it from one message to the next, and sends what it found. */
import { Session } from 'node:inspector/promises'

const session = new Session()
session.connect()
process.on('message', (message) => void obey(message))
process.channel?.unref()

async function obey(message: unknown): Promise<void> {
  switch (message) {
    case 'profile':
      await session.post('Profiler.enable')
      await session.post('Profiler.setSamplingInterval', { interval: 200 })
      return session.post('Profiler.start')
    case 'end of profile':
      return send(await session.post('Profiler.stop'))
    case 'allocations': {
      const passing = { includeObjectsCollectedByMajorGC: true, includeObjectsCollectedByMinorGC: true }
      return session.post('HeapProfiler.startSampling', { samplingInterval: 8_192, ...passing })
    }
    case 'end of allocations':
      return send(await session.post('HeapProfiler.stopSampling'))
  }
}

function send({ profile }: { readonly profile: object }): void {
  process.send?.({ profile })
}
