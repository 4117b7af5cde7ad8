import { fieldsOf, type Kind, SEEDED, type Stored } from './entities.ts'

/** More entities than these in one collection are refused, or for executions take the place of the oldest. */
export const MOST_IN_COLLECTION = 1_000
const MOST_BYTES = 64 * 2 ** 20

interface Collection {
  readonly entities: Map<string, Stored>
  bytes: number
}

/**
 * The entities that clients created, by account, organisation, project and kind. Each collection begins with the three seeds
 * of its kind, which cost no memory until something is written there. The memory is bounded: with more than 64 MiB in all, the
 * collection that was written to longest ago becomes what it was at the beginning.
 */
export class Store {
  /** In the order of their latest write. */
  readonly #collections = new Map<string, Collection>()
  #bytes = 0

  /** All entities of a collection in the order of their creation. */
  list(name: string, kind: Kind): readonly Stored[] {
    return [...this.#read(name, kind).values()]
  }

  get(name: string, kind: Kind, identifier: string): Stored | undefined {
    return this.#read(name, kind).get(identifier)
  }

  /** Stores the entity in the place of the one with its identifier. False, with nothing stored, if the collection is full. */
  put(name: string, kind: Kind, entity: Stored): boolean {
    const collection = this.#written(name, kind)
    const { entities } = collection
    const before = entities.get(entity.fields.identifier)
    if (before === undefined && entities.size >= MOST_IN_COLLECTION) {
      if (kind !== 'execution') return false
      this.#remove(collection, entities.keys().next().value!)
    }
    this.#count(collection, bytesOf(entity) - (before === undefined ? 0 : bytesOf(before)))
    entities.set(entity.fields.identifier, entity)
    for (const [oldest, { bytes }] of this.#collections) {
      if (this.#bytes <= MOST_BYTES || oldest === name) break
      this.#collections.delete(oldest)
      this.#bytes -= bytes
    }
    return true
  }

  delete(name: string, kind: Kind, identifier: string): void {
    this.#remove(this.#written(name, kind), identifier)
  }

  clear(): void {
    this.#collections.clear()
    this.#bytes = 0
  }

  #read(name: string, kind: Kind): ReadonlyMap<string, Stored> {
    return this.#collections.get(name)?.entities ?? SEEDS.getOrInsertComputed(kind, seedsOf)
  }

  #written(name: string, kind: Kind): Collection {
    const collection = this.#collections.get(name) ?? { entities: new Map(this.#read(name, kind)), bytes: 0 }
    if (collection.bytes === 0) {
      let bytes = name.length * 2
      for (const seed of collection.entities.values()) bytes += bytesOf(seed)
      this.#count(collection, bytes)
    }
    this.#collections.delete(name)
    this.#collections.set(name, collection)
    return collection
  }

  #remove(collection: Collection, identifier: string): void {
    const entity = collection.entities.get(identifier)
    if (entity === undefined) return
    collection.entities.delete(identifier)
    this.#count(collection, -bytesOf(entity))
  }

  #count(collection: Collection, bytes: number): void {
    collection.bytes += bytes
    this.#bytes += bytes
  }
}

/** How many entities a collection has at its beginning. */
export const SEED_COUNT = 3
const SEEDS = new Map<Kind, ReadonlyMap<string, Stored>>()

function seedsOf(kind: Kind): ReadonlyMap<string, Stored> {
  const seeds = Array.from({ length: SEED_COUNT }, (_, index) => {
    const about = kind === 'execution' ? { pipelineIdentifier: 'pipeline_1' } : {}
    return { fields: { ...fieldsOf(`${kind}_${index + 1}`), ...about }, ...SEEDED }
  })
  return new Map(seeds.map((seed) => [seed.fields.identifier, seed]))
}

/** What an entity costs, about: its text, and the objects around it. */
function bytesOf(entity: Stored): number {
  return JSON.stringify(entity).length * 2 + 500
}
