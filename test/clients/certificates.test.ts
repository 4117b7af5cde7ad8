import { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { expect, it } from 'vitest'
import { Callers } from '../../src/clients/callers.ts'
import { certificateOf } from '../../src/clients/certificates.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('of a connection that was closed since its request came has nothing to show', () => {
  const socket = new TLSSocket(new Socket())
  socket.destroy()
  expect(certificateOf(Object.assign(socket, { authorized: true }))).toBeUndefined()
})

it('proves nothing once it has expired, on a connection that it opened, too', async () => {
  const clock = new SimulatedClock()
  const bot = { keys: [], certificates: [{ san: 'DNS:bot' }] }
  const hierarchy = { teams: {}, organisations: {} }
  const callers = new Callers({ configured: { bot }, managed: undefined, hierarchy, issuers: undefined, clock })
  const certificate = { subjectAltName: 'DNS:bot', validToDate: new Date(clock.wall() + 1_000) }
  const connection = {
    authorized: true,
    getPeerX509Certificate: () => certificate,
    getPeerCertificate: () => ({ subject: { CN: 'bot' } }),
  }
  expect(callers.findByCertificate(connection)?.name).toBe('bot')
  await clock.advance(999)
  expect(callers.findByCertificate(connection)?.name).toBe('bot')
  await clock.advance(1)
  expect(callers.findByCertificate(connection)).toBeUndefined()
})
