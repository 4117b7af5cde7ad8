import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { ManagedClients, type StoredClient } from '../../src/clients/managed.ts'
import { FileRecords } from '../../src/records/file-records.ts'
import { systemClock } from '../../src/time/clock.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const stored = (name: string, scope: object): StoredClient => {
  return { id: `client_${name}`, name, keys: [], scope, createdAt: 0, updatedAt: 0, version: 1 }
}

it('a change of one client decodes no other one', async () => {
  const folder = temporaryFolder('managed')
  onTestFinished(() => folder.remove())
  const error = vi.fn()
  const logger = { error } as unknown as ConstructorParameters<typeof ManagedClients>[1]
  const records = new FileRecords<StoredClient>(join(folder.path, 'clients.json'), 'clients', systemClock)
  const clients = new ManagedClients(records, logger)
  for (const one of [stored('a', { share: '10%' }), stored('b', { weight: 2 }), stored('c', { unheardOf: true })])
    await clients.change(one.name, () => one)
  const [a, b, ...others] = clients.active
  expect([a, b, others]).toEqual([
    { name: 'a', keys: [], scope: { share: 0.1 } },
    expect.objectContaining({ name: 'b' }),
    [],
  ])
  await clients.change('b', (client) => ({ ...client!, scope: { weight: 3 } }))
  const after = clients.active
  expect(after[0]).toBe(a)
  expect(after[1]).toEqual({ name: 'b', keys: [], scope: { weight: 3 } })
  // What is not understood is told of once, however often it is looked at.
  expect(error).toHaveBeenCalledExactlyOnceWith({ client: 'c' }, expect.stringContaining('not understood'))
})
