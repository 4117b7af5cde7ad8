import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { expect, it } from 'vitest'
import { Metrics } from '../../src/observe/metrics.ts'
import { parseMetrics } from '../support/openmetrics.ts'

const LABELS = { upstream: 'u', account: 'a', class: 'read' }

it('says what the library would say of the same metrics', async () => {
  const metrics = new Metrics()
  const strange = { ...LABELS, client: 'a "quoted" \\ name\nof two lines' }
  metrics.requests.of({ ...strange, status: '200', outcome: 'delivered' }).increment('an "id"')
  metrics.requests.of({ ...LABELS, client: 'b', status: '429', outcome: 'queue_full' }).increment()
  metrics.requestDuration.of(LABELS).observeMs(7, 'x')
  metrics.requestDuration.of(LABELS).observeMs(700_000, 'y')
  const own = (all: string) => all.split('\n').filter((line) => line.includes('sluice_'))
  const shown = own(await text(Readable.from(metrics.exposition())))
  expect(shown.toSorted()).toEqual(own(await metrics.registry.metrics()).toSorted())
})

it('writes many series in many turns of the event loop, and each of them whole', async () => {
  const metrics = new Metrics({ maxClients: 10_000, maxAccounts: 10_000 })
  for (let i = 0; i < 5_000; i++) {
    metrics.requests.of({ ...LABELS, client: `c${i}`, status: '200', outcome: 'delivered' }).increment('id')
    if (i % 5 === 0) metrics.requestDuration.of({ ...LABELS, account: `a${i}` }).observeMs(1, 'id')
  }
  let turns = 0
  let isOver = false
  const turn = (): void => {
    turns++
    if (!isOver) setImmediate(turn)
  }
  setImmediate(turn)
  let most = 0
  let all = ''
  for await (const piece of metrics.exposition()) {
    all += piece
    if (!piece.includes('process_') && !piece.includes('nodejs_')) most = Math.max(most, piece.split('\n').length)
  }
  isOver = true
  expect(parseMetrics(all).length).toBeGreaterThan(24_000)
  expect(most).toBeLessThan(500)
  expect(turns).toBeGreaterThan(50)
})
