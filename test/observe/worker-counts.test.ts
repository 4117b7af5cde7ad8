import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { exposition } from '../../src/observe/exposition.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import type { CountPiece } from '../../src/observe/series.ts'
import { unsentCounts, WorkerCounts } from '../../src/observe/worker-counts.ts'
import { parseMetrics } from '../support/openmetrics.ts'

/** What a process tells of one counter; of calls to `other` it knows no example. */
function counted(value: number, id: string, timestamp: number): CountPiece {
  const exemplar = { labelSet: { correlation_id: id }, value: 1, timestamp }
  const values = [
    { labels: { upstream: 'harness' }, value, exemplar },
    { labels: { upstream: 'other' }, value, exemplar: null },
  ]
  return { name: 'sluice_requests', help: 'Calls.', type: 'counter', values }
}

async function textOf(counts: WorkerCounts): Promise<string> {
  return `${(await Array.fromAsync(counts.exposition())).join('')}# EOF\n`
}

/** A process that has counted calls of so many clients. */
function busyProcess(clients: number): { metrics: Metrics; call(): void } {
  const metrics = new Metrics({ maxClients: clients, maxAccounts: 1 })
  const labels = { upstream: 'u', account: 'a', class: 'read' }
  const call = (): void => {
    for (let i = 0; i < clients; i++) {
      metrics.requests.of({ ...labels, client: `"${i}\n`, status: '200', outcome: 'delivered' }).increment(`id-${i}`)
    }
    metrics.requestDuration.of(labels).observeMs(12, 'id')
  }
  call()
  return { metrics, call }
}

async function tell(counts: WorkerCounts, worker: number, { registry }: Metrics): Promise<number> {
  let values = 0
  for await (const piece of unsentCounts(registry)) {
    values += piece.name.startsWith('sluice_') ? piece.values.length : 0
    counts.note(worker, piece)
  }
  return values
}

describe('what several processes have counted', () => {
  it('is added up, and each series has the latest exemplar of all', async () => {
    const counts = new WorkerCounts()
    for (const [worker, piece] of [counted(1, 'first', 1), counted(2, 'latest', 3), counted(4, 'second', 2)].entries())
      counts.note(worker, piece)
    expect(parseMetrics(await textOf(counts))).toEqual([
      {
        name: 'sluice_requests_total',
        labels: { upstream: 'harness' },
        value: 7,
        exemplar: { labels: { correlation_id: 'latest' }, value: 1 },
      },
      { name: 'sluice_requests_total', labels: { upstream: 'other' }, value: 7, exemplar: undefined },
    ])
  })

  it('is counted once where each counts what all of them see, also when one has ended', async () => {
    const counts = new WorkerCounts()
    const of = async () => parseMetrics(await textOf(counts))[0]!.value
    const low = (value: number) => ({ ...counted(value, 'id', 1), name: 'sluice_quota_low' })
    for (const [worker, value] of [3, 4, 2].entries()) counts.note(worker, low(value))
    expect(await of()).toBe(4)
    await counts.end(1)
    expect(await of()).toBe(4)
    await counts.end(0)
    expect(await of()).toBe(4)
    // Of which it has seen three since it was last heard of.
    counts.note(2, low(5))
    expect(await of()).toBe(7)
    counts.note(3, low(0))
    await counts.end(2)
    counts.note(3, low(2))
    expect(await of()).toBe(9)
  })

  it('has the lines that one process has', async () => {
    const { metrics } = busyProcess(2_500)
    const counts = new WorkerCounts()
    await tell(counts, 1, metrics)
    const own = parseMetrics((await Array.fromAsync(exposition(metrics.registry))).join(''))
    const all = parseMetrics(await textOf(counts))
    const names = new Set(all.map(({ name }) => name))
    const keyOf = (sample: object): string => JSON.stringify(sample)
    // The library's own are about the moment in which they are read.
    const isSteady = ({ name }: { name: string }): boolean => name.startsWith('sluice_')
    expect(all.filter(isSteady).map(keyOf).toSorted()).toEqual(
      own
        .filter((sample) => isSteady(sample) && names.has(sample.name))
        .map(keyOf)
        .toSorted(),
    )
    expect([...names]).toContain('process_cpu_seconds_total')
    expect([...names]).toContain('sluice_request_duration_seconds_bucket')
  })

  it('is told once, and then only what changed', async () => {
    const { metrics, call } = busyProcess(100)
    const counts = new WorkerCounts()
    expect(await tell(counts, 1, metrics)).toBeGreaterThan(100)
    expect(await tell(counts, 1, metrics)).toBe(0)
    call()
    expect(await tell(counts, 1, metrics)).toBe(100 + 19)
    const calls = parseMetrics(await textOf(counts)).filter(({ name }) => name === 'sluice_requests_total')
    expect(calls.map(({ value }) => value)).toEqual(Array.from({ length: 100 }, () => 2))
  })

  it('stays when a process ends, and is whole in a scrape that goes on meanwhile', async () => {
    const counts = new WorkerCounts()
    for (const worker of [1, 2]) await tell(counts, worker, busyProcess(5_000).metrics)
    const before = parseMetrics(await textOf(counts)).map(({ name, labels, value }) => ({ name, labels, value }))
    const sorted = (text: string) =>
      parseMetrics(text)
        .map(({ name, labels, value }) => JSON.stringify({ name, labels, value }))
        .toSorted()
    const scrape = textOf(counts)
    const ended = counts.end(1)
    const meanwhile = textOf(counts)
    await ended
    const expected = before.map((one) => JSON.stringify(one)).toSorted()
    for (const text of [await scrape, await meanwhile, await textOf(counts)]) expect(sorted(text)).toEqual(expected)
  })

  it('is told, merged and written in small pieces', async () => {
    const { metrics } = busyProcess(20_000)
    const counts = new WorkerCounts()
    const largest = { told: 0, written: 0 }
    for await (const piece of unsentCounts(metrics.registry)) {
      largest.told = Math.max(largest.told, piece.values.length)
      counts.note(1, piece)
    }
    for await (const piece of counts.exposition()) {
      largest.written = Math.max(largest.written, piece.split('\n').length)
    }
    expect(largest.told).toBeLessThan(500)
    expect(largest.written).toBeLessThan(1_100)
    let turns = 0
    let isOver = false
    const merging = counts.end(1).then(() => (isOver = true))
    while (!isOver) {
      await nextTurn()
      turns++
    }
    await merging
    expect(turns).toBeGreaterThan(10)
  })
})
