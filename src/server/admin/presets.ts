import type { FastifyInstance } from 'fastify'
import { presets as builtIn } from '../../config/presets/index.ts'
import { name, object } from '../../schema/schema-parts.ts'
import { idOfName, newId } from '../../records/ids.ts'
import { type Listed, listOf, oneOf, readListQuery, TAKES_QUERY } from './list.ts'
import type { Management, StoredPreset } from './management.ts'
import { AdminProblem, nameTaken, notFound } from './problem.ts'
import { readBody } from './validate.ts'

interface ShownPreset extends Listed {
  readonly id: string
  readonly source: 'built-in' | 'api'
  readonly read_only: boolean
  readonly based_on: string | null
  /** Settings of an upstream, as the configuration file has them. */
  readonly config: object
}

const CopySchema = object({ name: name() })

type Id = { Params: { id: string } }

/** Serves `/v1/presets`: what the gateway knows about vendors, and copies of that which can be changed. */
export function presetRoutes(api: FastifyInstance, { presets, audit, clock }: Management): void {
  const all = async (): Promise<ShownPreset[]> => [...builtIns(), ...[...(await presets.read()).values()].map(copied)]
  const find = async (id: string): Promise<ShownPreset> => oneOf(await all(), 'preset', id)
  api.get('/presets', TAKES_QUERY, ({ query }) => all().then((presets) => listOf(presets, readListQuery(query))))
  api.get<Id>('/presets/:id', ({ params }) => find(params.id))
  api.post<Id>('/presets/:id/copy', async (request, reply) => {
    const original = await find(request.params.id)
    const { name } = readBody(CopySchema, request.body)
    if (Object.hasOwn(builtIn, name)) throw nameTaken('preset')
    const id = newId('preset')
    const copy = { id, name, basedOn: original.name, config: original.config, createdAt: clock.wall() }
    await presets.change(name, (before) => {
      if (before !== undefined) throw nameTaken('preset')
      return copy
    })
    await audit.record(request.actor, { action: 'preset.copy', target: id, name, before: null, after: copied(copy) })
    return reply.code(201).header('Location', `/v1/presets/${id}`).send(copied(copy))
  })
  api.delete<Id>('/presets/:id', async (request, reply) => {
    const before = await find(request.params.id)
    if (before.read_only) throw new AdminProblem(409, 'READ_ONLY', 'a built-in preset can only be copied')
    const { id, name } = before
    await presets.change(name, (stored) => {
      // Another of that name may have come meanwhile.
      if (stored?.id !== id) throw notFound('preset', request.params.id)
      return undefined
    })
    await audit.record(request.actor, { action: 'preset.delete', target: id, name, before, after: null })
    return reply.code(204).send()
  })
}

function builtIns(): ShownPreset[] {
  return Object.entries(builtIn).map(([name, { config }]) => {
    return { id: idOfName('preset', name), name, source: 'built-in', read_only: true, based_on: null, config }
  })
}

function copied({ id, name, basedOn, config }: StoredPreset): ShownPreset {
  return { id, name, source: 'api', read_only: false, based_on: basedOn, config }
}
