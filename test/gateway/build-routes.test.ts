import { expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { buildRoutes } from '../../src/gateway/build-routes.ts'
import { harnessConfig } from '../support/gateway.ts'

it('routes are built in more steps than there are routes, so that a reload lets calls go on', () => {
  const routes = Array.from({ length: 500 }, (_, i) => ({ path: `/r${i}/{id}`, class: 'read' }))
  const config = checkConfig(harnessConfig('https://app.harness.io', { routes }), 'test')
  const building = buildRoutes(config.upstreams['harness']!, undefined)
  let steps = 0
  let step = building.next()
  for (; step.done !== true; step = building.next()) steps++
  expect(steps).toBeGreaterThan(routes.length)
  expect(step.value.find('GET', '/r499/x')).toMatchObject({ class: 'read', pattern: '/r499/{id}' })
})
