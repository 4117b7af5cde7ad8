import { type Answer, call } from './http.ts'

export const ADMIN_TOKEN = 'admin-token'

/** Asks the admin API. */
export function ask(
  { adminUrl }: { adminUrl: string },
  method: string,
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const type: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
  return call(adminUrl, `/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${ADMIN_TOKEN}`, ...type, ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
}
