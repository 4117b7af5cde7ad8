/**
 * Finds values of JSON in which `text`, in upper or lower case, is part of a text or a number, at any depth. Names of fields do not
 * count: each row of a list has them all.
 */
export function searchFor(text: string): (value: unknown) => boolean {
  const wanted = text.toLowerCase()
  const has = (value: unknown): boolean => {
    if (typeof value === 'string' || typeof value === 'number') return String(value).toLowerCase().includes(wanted)
    return typeof value === 'object' && value !== null && Object.values(value).some(has)
  }
  return has
}
