/** The words of a path segment: `listV2` and `list-v2` are `list`, `ruleLastExecution` is `rule last execution`. */
export function words(segment: string): string[] {
  const named = segment.replace(/[-_]?[vV]\d+$/, '')
  return (named.match(/[A-Z]?[a-z]+|[A-Z]+(?![a-z])/g) ?? []).map((word) => word.toLowerCase())
}

/** The words by which the end of a path says that a POST only reads. */
export interface ReadingWords {
  /** What the last segment begins with: `list`, `get-references`. */
  readonly verbs: ReadonlySet<string>
  /** What it ends with: `summary`, `filter-values`. */
  readonly things: ReadonlySet<string>
  /** What the segment before it ends with. What follows is what is looked at: a list's name, the range of a diff. */
  readonly before: ReadonlySet<string>
}

const setOf = (text: string): ReadonlySet<string> => new Set(text.split(' '))

/** test/config/classification.test.ts shows how well they tell operations from which none of them was taken. */
export const READING_WORDS: ReadingWords = {
  verbs: setOf(
    'list filter search query validate get find fetch check is has count compare preview calculate estimate analyze describe lookup resolve render explain grep download export aggregate aggregated diff',
  ),
  things: setOf(
    'list filter search query count counts summary outline stats statistics aggregate aggregation values overview chart graph coverage logs records data schema diff existence references validation validate divergence history csv pdf',
  ),
  before: setOf('list filter search validate diff check validation'),
}

const MADE_LISTS = setOf('allow block deny ignore ip white black')

/**
 * Whether the end of a path says that a POST only reads, as in `/projects/list`, `/costs/filter-values` or
 * `/rule-sets/list/my-set`. It knows how vendors name such operations, and in doubt says that the call changes
 * something.
 */
export function soundsLikeReading(path: string, { verbs, things, before }: ReadingWords = READING_WORDS): boolean {
  const [last = '', previous = ''] = namedSegments(path).toReversed()
  const spoken = words(last)
  const [first = '', thing = first] = [spoken[0], spoken.at(-1)]
  if (verbs.has(first) || RUN_TOGETHER.test(first)) return true
  if (things.has(thing)) return !MADE_LISTS.has(spoken.at(-2) ?? '') && !spoken.includes('set')
  if (thing.endsWith('list')) return !/^(allow|block|deny|ignore|white|black|check)list$/.test(thing)
  const asked = words(previous)
  // In "download-delegates/docker" a choice follows a verb with its object.
  if (asked.length > 1 && verbs.has(asked[0]!)) return true
  return before.has(asked.at(-1) ?? '') && !MADE_LISTS.has(asked.at(-2) ?? '')
}

/** Names without capitals or dashes, such as `listbyname`. */
const RUN_TOGETHER = /^(?:get[a-z]{4,}|(?:count|find|get|list|search)by[a-z]+)$/

const CHANGING_VERBS = setOf(
  'reset refresh retrigger rerun regenerate revoke cancel abort restart execute toggle delete unsubscribe',
)

/** Whether the end of a path says that a GET changes something, as in `/executions/{id}/retrigger`. */
export function soundsLikeChanging(path: string): boolean {
  const [last = '', previous = ''] = namedSegments(path).toReversed()
  const [verb = ''] = words(last)
  if (CHANGING_VERBS.has(verb)) return true
  // In "reset-password/{user}" an id follows a verb with its object. A lone verb in that place belongs to an id.
  const [earlierVerb = '', object] = words(previous)
  return CHANGING_VERBS.has(earlierVerb) && object !== undefined && !READING_WORDS.verbs.has(verb)
}

function namedSegments(path: string): string[] {
  return path.split('/').filter((segment) => segment !== '' && !/^v\d+$/i.test(segment))
}
