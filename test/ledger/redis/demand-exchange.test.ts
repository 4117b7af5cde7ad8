import { expect, it } from 'vitest'
import { peerDemandOf } from '../../../src/ledger/redis/reply.ts'

const demand = {
  client: 'a',
  weight: 1,
  share: 0,
  priority: 'normal',
  calls: 3,
  waitedMs: 40,
  perSecond: 0.5,
}

function replyWith(changes: object, virtualService: object = { a: 2 }): string {
  return JSON.stringify({ virtualService, turns: 4, others: [{ agoMs: 10, demands: [{ ...demand, ...changes }] }] })
}

it('tells who waits elsewhere, as of now', () => {
  expect(peerDemandOf(replyWith({}), 1_000)).toEqual({
    at: 1_000,
    turns: 4,
    virtualService: new Map([['a', 2]]),
    others: [{ ...demand, waitedMs: 50 }],
  })
  expect(peerDemandOf('{"virtualService":{},"turns":0,"others":{}}', 1_000).others).toEqual([])
})

it.each([
  replyWith({ client: 7 }),
  replyWith({ weight: 0 }),
  replyWith({ weight: -1 }),
  replyWith({ weight: 'x' }),
  replyWith({ share: 2 }),
  replyWith({ share: null }),
  replyWith({ priority: 'constructor' }),
  replyWith({ calls: 1e15 }),
  replyWith({ calls: -1 }),
  replyWith({ waitedMs: null }),
  replyWith({ perSecond: {} }),
  replyWith({ isBlocked: 1 }),
  replyWith({}, { a: 'x' }),
  replyWith({}, { a: null }),
  '{"virtualService":{},"turns":0,"others":[{"agoMs":"x","demands":[]}]}',
  '{"virtualService":{},"turns":0,"others":[{"agoMs":1}]}',
  '{"virtualService":{},"turns":0,"others":[null]}',
  '{"virtualService":{},"others":[]}',
  '{"virtualService":{},"turns":"x","others":[]}',
  '{"virtualService":{},"turns":0}',
  'null',
  'garbage',
  '',
])('never computes from what no gateway tells: %s', (reply) => {
  expect(() => peerDemandOf(reply, 1_000)).toThrow(Error)
})
