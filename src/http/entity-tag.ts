/** Stands at the end of each tag that the gateway made weak itself. */
const MARK = '-sluice'

/**
 * The tag of a body that is passed on in other bytes than it was sent in. Such a tag must be weak (RFC 9110 §8.8.1). It is marked,
 * because vendors also give weak tags of their own, and some want those back in If-Match as they are.
 */
export function weakened(etag: string): string {
  return etag.startsWith('"') && etag.endsWith('"') ? `W/${etag.slice(0, -1)}${MARK}"` : etag
}

/**
 * Undoes `weakened` in the tags of a condition. Without this a client could not change what it has read, since a weak tag never
 * matches in If-Match (RFC 9110 §13.1.1).
 */
export function asSent(tags: string): string {
  return tags.includes(`${MARK}"`) ? tags.replace(MARKED, '"$1"') : tags
}

const MARKED = new RegExp(`(?:W/)?"([^"]*)${MARK}"`, 'g')
