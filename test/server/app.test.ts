import { expect, it } from 'vitest'
import { harnessConfig, startApp } from '../support/gateway.ts'
import { call } from '../support/http.ts'

it('a mistake in the server itself is answered, logged and counted like one in the gateway', async () => {
  const { url, lines } = await startApp(harnessConfig('http://127.0.0.1:1'), {
    change: (app) => app.addHook('onRequest', () => Promise.reject(new Error('oops'))),
  })
  const answer = await call(url, '/harness/ng/api/projects')
  expect(answer).toMatchObject({ status: 500, headers: { 'x-sluice-error': 'internal' } })
  expect(answer.body).not.toContain('oops')
  expect(lines).toMatchObject([{ outcome: 'internal', status: '500' }])
})
