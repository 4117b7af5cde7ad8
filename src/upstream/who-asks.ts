import { fieldOf, type Forward } from './headers.ts'

/** These settings decide which fields of a request go upstream and may tell who asks. All names are in lower case. */
interface Rules {
  /** Headers in which a call may name its account. */
  readonly accountFields: ReadonlySet<string>
  /** Fields that do not go upstream. */
  readonly droppedNames: ReadonlySet<string>
  readonly forward: readonly Forward[]
}

/** Whether any field of a client's request may tell the upstream who asks. Usually none does, and `whoAsks` is not needed. */
export function tellsWhoAsks(raw: readonly string[], { accountFields, droppedNames, forward }: Rules): boolean {
  // The gateway then tells the upstream by which host name the client called it. The upstream may put that name in links.
  if (forward.includes('client')) return true
  for (let i = 0; i < raw.length; i += 2) {
    const { lower, kind, isIdentifying } = fieldOf(raw[i]!)
    if (!(isIdentifying || accountFields.has(lower)) || droppedNames.has(lower)) continue
    if (kind === 'call' || kind === 'cookie') return true
  }
  return false
}

/** The fields that may tell the upstream who asks, of a request as it goes upstream: lower-case names and values in turn. */
export function whoAsks(outgoing: readonly string[], { accountFields }: Pick<Rules, 'accountFields'>): string[] {
  const fields: string[] = []
  for (let i = 0; i < outgoing.length; i += 2) {
    const { lower, isIdentifying } = fieldOf(outgoing[i]!)
    if (isIdentifying || accountFields.has(lower)) fields.push(lower, outgoing[i + 1]!)
  }
  return fields
}
