/** The words of a path segment: `listV2` and `list-v2` are `list`, `ruleLastExecution` is `rule last execution`. */
export function words(segment: string): string[] {
  const named = segment.replace(/[-_]?[vV]\d+$/, '')
  return (named.match(/[A-Z]?[a-z]+|[A-Z]+(?![a-z])/g) ?? []).map((word) => word.toLowerCase())
}

const READING_VERBS = new Set(
  'list filter search query validate get find fetch check is has count compare preview calculate estimate analyze describe lookup resolve render explain grep download export aggregate aggregated diff'.split(
    ' ',
  ),
)
const READ_THINGS = new Set(
  'list filter search query count counts summary outline stats statistics aggregate aggregation values overview chart graph coverage logs records data schema diff existence references validation validate divergence history'.split(
    ' ',
  ),
)
const MADE_LISTS = new Set(['allow', 'block', 'deny', 'ignore', 'ip', 'white', 'black'])

/**
 * Whether the end of a path says that a POST only reads, as in `/projects/list`, `/costs/filter-values` or
 * `/rule-sets/list/my-set`. It knows how vendors name such operations, and in doubt says that the call changes
 * something.
 */
export function soundsLikeReading(path: string): boolean {
  const [last = '', previous = ''] = namedSegments(path).toReversed()
  const spoken = words(last)
  const [first = '', thing = first] = [spoken[0], spoken.at(-1)]
  if (READING_VERBS.has(first)) return true
  if (READ_THINGS.has(thing)) return !MADE_LISTS.has(spoken.at(-2) ?? '') && !spoken.includes('set')
  if (thing.endsWith('list')) return !/^(allow|block|deny|ignore|white|black|check)list$/.test(thing)
  // What follows these is what is looked at: a list's name, the range of a diff.
  return /^(?:list|filter|search|validate|diff|.+-check)$/.test(previous)
}

const CHANGING_VERBS = new Set(
  'reset refresh retrigger rerun regenerate revoke cancel abort restart execute toggle delete unsubscribe'.split(' '),
)

/** Whether the end of a path says that a GET changes something, as in `/executions/{id}/retrigger`. */
export function soundsLikeChanging(path: string): boolean {
  const [last = '', previous = ''] = namedSegments(path).toReversed()
  const [verb = ''] = words(last)
  if (CHANGING_VERBS.has(verb)) return true
  // In "reset-password/{user}" an id follows a verb with its object. A lone verb in that place belongs to an id.
  const [earlierVerb = '', object] = words(previous)
  return CHANGING_VERBS.has(earlierVerb) && object !== undefined && !READING_VERBS.has(verb)
}

function namedSegments(path: string): string[] {
  return path.split('/').filter((segment) => segment !== '' && !/^v\d+$/i.test(segment))
}
