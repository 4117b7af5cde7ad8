import type { Observed } from '../../src/observe/gauges.ts'

/** What the gauges of a process show of which nothing is known. */
export const NOTHING_OBSERVED: Observed = {
  queues: () => [],
  usage: () => Promise.resolve([]),
  credentials: () => [],
  dues: () => Promise.resolve([]),
  budgets: () => Promise.resolve([]),
  connections: () => [],
  clientConnections: () => Promise.resolve(0),
  breakers: () => [],
  clientKeys: () => [],
  certificateInMs: undefined,
  isStoreDegraded: false,
}
