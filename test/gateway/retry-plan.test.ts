import { expect, it } from 'vitest'
import type { Call, Target } from '../../src/gateway/call.ts'
import { RetryPlan } from '../../src/gateway/retry-plan.ts'
import { Admissions } from '../support/admissions.ts'

it.each([
  ['10', true],
  ['11', false],
])('a call of %s bytes takes another credential for one that can not be had: %s', (bytes, isReplaced) => {
  const it = new Admissions({
    url: 'http://127.0.0.1:1',
    accounts: { main: { credentials: ['a', 'b'].map((name) => ({ name, value: name })) } },
    limits: { all: [{ requests: 10, window: '60s', cost: { bytes: 1 } }] },
  })
  const request: { method: string; headers: Record<string, string> } = { method: 'GET', headers: {} }
  const call = { clock: it.clock, startedAt: it.clock.now(), request } as unknown as Call
  const plan = new RetryPlan(call, it.target('GET', '/x') as Target, Math.random)
  // The limit allows ten, so a call of more can't be admitted with any credential.
  request.headers['content-length'] = bytes
  expect(plan.replaceCredential()).toBe(isReplaced)
})
