import { fieldOf, type Forward } from './headers.ts'

/** What decides which fields of a request go upstream and name somebody. All names are in lower case. */
interface Rules {
  /** Headers in which a call may name its account. */
  readonly accountFields: ReadonlySet<string>
  /** Fields that do not go upstream. */
  readonly droppedNames: ReadonlySet<string>
  readonly forward: readonly Forward[]
}

/** Whether a field may tell the upstream who asks. Usually none does, and this is all that is looked at. */
export function tellsWhoAsks(raw: readonly string[], { accountFields, droppedNames, forward }: Rules): boolean {
  // The gateway says by which name the client called it, and the upstream may make links of that.
  if (forward.includes('client')) return true
  for (let i = 0; i < raw.length; i += 2) {
    const { lower, kind, isIdentifying } = fieldOf(raw[i]!)
    if (!(isIdentifying || accountFields.has(lower)) || droppedNames.has(lower)) continue
    if (kind === 'call' || kind === 'cookie') return true
  }
  return false
}

/** Those fields of a request as it goes upstream: lower-case names and values in turn. */
export function whoAsks(outgoing: readonly string[], { accountFields }: Pick<Rules, 'accountFields'>): string[] {
  const fields: string[] = []
  for (let i = 0; i < outgoing.length; i += 2) {
    const { lower, isIdentifying } = fieldOf(outgoing[i]!)
    if (isIdentifying || accountFields.has(lower)) fields.push(lower, outgoing[i + 1]!)
  }
  return fields
}
