/** What an answer says, before it gets the form of its API. At most one of `data` and `page` is set. With neither, the data is null. */
export interface Outcome {
  readonly data?: unknown
  readonly page?: Page
  /** Created by this request: 201 where the API says so. */
  readonly isNew?: boolean
  /** Without a body where the API answers 204. */
  readonly isSilent?: boolean
  /** Whether it gets an ETag and may be answered 304. */
  readonly isTagged?: boolean
}

export interface Page {
  readonly content: readonly object[]
  /** From 0. */
  readonly index: number
  readonly size: number
  /** How many there are on all pages. */
  readonly total: number
}

/** An answer that is an error, with the vendor's code in its body. */
export class VendorError extends Error {
  readonly status: number
  readonly code: string | undefined

  constructor(status: number, message: string, code?: string) {
    super(message)
    this.name = 'VendorError'
    this.status = status
    this.code = code
  }
}

/**
 * The page that a query asks for: `pageIndex` or `page`, from 0, and `size`, `pageSize` or `limit`, 50 by default and 30 in the
 * newer API. A page behind the last one is empty, so that a client that reads on until a page is empty comes to an end. Throws
 * a `VendorError` (400) for a page or size that is no whole number in its range.
 */
export function pageOf(all: readonly object[], query: string, v1: boolean): Page {
  const parameters = new URLSearchParams(query)
  const index = numberIn(parameters, ['pageIndex', 'page'], 0, 0, 999_999_999)
  const size = numberIn(parameters, ['size', 'pageSize', 'limit'], v1 ? 30 : 50, 1, 1_000)
  return { content: all.slice(index * size, (index + 1) * size), index, size, total: all.length }
}

function numberIn(
  query: URLSearchParams,
  names: readonly string[],
  fallback: number,
  least: number,
  most: number,
): number {
  const name = names.find((one) => query.has(one))
  if (name === undefined) return fallback
  const text = query.get(name) ?? ''
  const value = Number(text)
  if (!/^\d{1,9}$/.test(text) || value < least || value > most) {
    throw new VendorError(400, `${name}: must be a whole number from ${least} to ${most}, not "${text.slice(0, 40)}"`)
  }
  return value
}
