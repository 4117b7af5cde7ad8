import { resolve } from 'node:path'
import { keyOf, lookUpWith, type Reference, referencesIn, resolveReferences, whyEmpty } from './references.ts'
import type { Logger } from '../observe/log.ts'
import type { Secret } from '../schema/secret.ts'
import type { Answer, SecretSource } from './source.ts'

/** The sources of values that can change while the program runs, by the kind of their references. */
export type Sources = ReadonlyMap<string, SecretSource>

/**
 * Keeps secrets up to date with their sources. A new value is in force with the next call. If a value is gone or
 * unusable, the secret keeps the one it has.
 */
export class SecretFollower {
  readonly #sources: Sources
  readonly #logger: Logger
  readonly #followed: { readonly secret: Secret; readonly references: readonly Reference[] }[] = []
  readonly #known = new Map<string, Answer>()
  readonly #reading = new Map<string, Promise<void>>()
  /** The problem that was last logged, by reference. */
  readonly #problems = new Map<string, string>()

  constructor(secrets: readonly Secret[], sources: Sources, logger: Logger) {
    this.#sources = sources
    this.#logger = logger
    for (const secret of new Set(secrets)) this.#add(secret)
  }

  /** Watches every source, and reads it once, for what changed since the configuration was read. */
  async start(): Promise<void> {
    for (const [kind, source] of this.#sources) {
      const names = this.#namesOf(kind)
      if (names.length > 0) source.watch(names, () => void this.#read(kind))
    }
    await Promise.all([...this.#sources.keys()].map((kind) => this.#read(kind)))
  }

  /** From now on the secrets ask this follower to look again, and tell it what was refused. */
  serve(): void {
    for (const { secret, references } of this.#followed) {
      secret.nextRefused = () => {
        for (const reference of references) {
          const known = this.#known.get(keyOf(reference))
          if (known === undefined || 'problem' in known || known.next === undefined) continue
          void this.#sources.get(reference.kind)!.noteRefused?.(reference.name, known.next)
        }
      }
      secret.lookAgain = async () => {
        await Promise.all([...new Set(references.map(({ kind }) => kind))].map((kind) => this.#read(kind)))
      }
    }
  }

  /** Never rejects: nobody needs what could not be closed. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#sources.values()].map((source) => source.close()))
  }

  #add(secret: Secret): void {
    const { template } = secret
    if (template === undefined) return
    const references = referencesIn(template.text)
      .filter(({ kind }) => this.#sources.has(kind))
      .map(({ kind, name }) => ({ kind, name: kind === 'file' ? resolve(template.folder, name) : name }))
    if (references.length === 0) return
    this.#followed.push({ secret, references })
  }

  #namesOf(kind: string): string[] {
    const all = this.#followed.flatMap(({ references }) => references)
    return [...new Set(all.filter((reference) => reference.kind === kind).map(({ name }) => name))]
  }

  /** Reads a source, once at a time: who comes meanwhile gets the outcome of that read. */
  #read(kind: string): Promise<void> {
    const reading = this.#reading.get(kind) ?? this.#readNow(kind).finally(() => this.#reading.delete(kind))
    this.#reading.set(kind, reading)
    return reading
  }

  async #readNow(kind: string): Promise<void> {
    const names = this.#namesOf(kind)
    if (names.length === 0) return
    const answers = await this.#sources.get(kind)!.read(names)
    for (const [name, answer] of answers) {
      const reference = { kind, name }
      const problem = 'problem' in answer ? answer.problem : whyEmpty(reference, answer)
      this.#tell(keyOf(reference), problem)
      if (problem === undefined) this.#known.set(keyOf(reference), answer)
    }
    let isAnyNew = false
    for (const { secret, references } of this.#followed) {
      if (references.some((reference) => reference.kind === kind)) isAnyNew = this.#renew(secret) || isAnyNew
    }
    if (!isAnyNew || kind !== 'file') return
    // It may be what another source is opened with, such as the master key of the store. Nobody waits for that here: the source may
    // hang, and a call that was refused, or the next change of a file, has nothing to do with it.
    for (const other of this.#sources.keys()) if (other !== kind) void this.#read(other)
  }

  /** Returns whether the value has changed. */
  #renew(secret: Secret): boolean {
    const { text, folder } = secret.template!
    const lookUpHere = lookUpWith(process.env, folder)
    const resolution = resolveReferences(text, ({ kind, name }) => {
      if (!this.#sources.has(kind)) return lookUpHere({ kind, name })
      const key = keyOf({ kind, name: kind === 'file' ? resolve(folder, name) : name })
      return this.#known.get(key) ?? { problem: `${key} is not known yet` }
    })
    if ('problem' in resolution) return false
    const problem = secret.whyNot(resolution.text) ?? (resolution.next && secret.whyNot(resolution.next))
    this.#tell(text, problem)
    if (problem !== undefined) return false
    secret.expiresAt = resolution.expiresAt
    const isNew = secret.replace(resolution.text, resolution.next, resolution.nextExpiresAt)
    if (isNew) this.#logger.info({ references: referencesIn(text).map(keyOf) }, 'a secret has a new value')
    return isNew
  }

  #tell(about: string, problem: string | undefined): void {
    if (this.#problems.get(about) === problem) return
    if (problem === undefined) {
      this.#problems.delete(about)
      return
    }
    this.#problems.set(about, problem)
    this.#logger.warn({ problem }, 'a secret can not be renewed: its last value stays in force')
  }
}
