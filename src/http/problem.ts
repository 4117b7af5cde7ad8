import { STATUS_CODES } from './node-http.ts'

export const PROBLEM_TYPE = 'application/problem+json'

/** Problem details (RFC 9457), to which more members may be added; `code` is what programs look at. */
export function problemDetails(status: number, code: string, detail: string): object {
  return { type: 'about:blank', title: STATUS_CODES[status], status, detail, code }
}
