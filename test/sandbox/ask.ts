import { type Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'

export interface Asking {
  readonly method?: string
  /** Sent as it is: nothing is encoded, collapsed or re-ordered. */
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  /** The body read as JSON, if it claims to be that. */
  readonly json: unknown
}

export const TOKEN = 'pat.acct1.tokenid.secret'
const WITH_TOKEN = { 'x-api-key': TOKEN }

/** One request over a connection of its own, or over one of `agent`. Rejects if the answer breaks off. */
export async function ask(url: string, asking: Asking = {}, agent: Agent | false = false): Promise<Answered> {
  const response = await begin(url, asking, agent)
  let body = ''
  for await (const piece of response) body += String(piece)
  const isJson = body !== '' && response.headers['content-type'] === 'application/json'
  return { status: response.statusCode!, headers: response.headers, body, json: isJson ? JSON.parse(body) : undefined }
}

/** The same up to the headers of the answer. */
export function begin(
  url: string,
  { method = 'GET', path = '/', headers = WITH_TOKEN, body }: Asking,
  agent: Agent | false = false,
): Promise<IncomingMessage> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, method, path, headers, agent }, resolve)
    sent.once('error', reject)
    sent.end(body)
  })
}
