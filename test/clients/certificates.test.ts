import { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { expect, it } from 'vitest'
import { certificateOf } from '../../src/clients/certificates.ts'

it('of a connection that was closed since its request came has nothing to show', () => {
  const socket = new TLSSocket(new Socket())
  socket.destroy()
  expect(certificateOf(Object.assign(socket, { authorized: true }))).toBeUndefined()
})
