import type { IncomingHttpHeaders } from 'node:http'
import { expect, it } from 'vitest'
import { requestIdOf } from '../../src/http/request-id.ts'

it.each<[IncomingHttpHeaders, string | undefined]>([
  [{ 'x-correlation-id': 'a', 'x-request-id': 'b' }, 'a'],
  [{ 'x-correlation-id': 'a, a' }, 'a'],
  [{ 'x-correlation-id': 'a, c', 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': '', 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': 'ä', 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': 'x'.repeat(129), 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': '.', 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': '..', 'x-request-id': 'b' }, 'b'],
  [{ 'x-correlation-id': '...', 'x-request-id': 'b' }, '...'],
  [{ 'x-correlation-id': '', 'x-request-id': '' }, undefined],
  [{}, undefined],
])('the id of a request with %j is %j: the first that may name it', (headers, id) => {
  expect(requestIdOf(headers)).toBe(id)
})
