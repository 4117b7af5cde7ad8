import { totalmem } from 'node:os'
import { Gauge, type Registry } from '../packages/prometheus.ts'
import { manifest } from '../manifest.ts'

/**
 * Registers what is true of the gateway as a whole. With several workers, the first process registers it for all.
 * Returns the gauge of missing workers.
 */
export function registerProcessInfo(registry: Registry): Gauge {
  const registers = [registry]
  new Gauge({
    name: 'sluice_build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'node'],
    registers,
  }).set({ version: manifest.version, node: process.versions.node }, 1)
  new Gauge({
    name: 'sluice_start_time_seconds',
    help: 'When the gateway started, in Unix seconds.',
    registers,
  }).set(Date.now() / 1_000 - process.uptime())
  new Gauge({
    name: 'sluice_memory_limit_bytes',
    help: 'The memory that the gateway may use: the limit of its container, or what the machine has.',
    registers,
    // The limit of a container may change while it runs.
    collect() {
      this.set(memoryLimit())
    },
  })
  return new Gauge({
    name: 'sluice_workers_missing',
    help: 'Workers that did not answer the scrape, or are being replaced: gauges lack them.',
    registers,
  })
}

/** A container without a limit reports 0, or more than there is memory. */
function memoryLimit(): number {
  const constrained = process.constrainedMemory()
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem()
}
