import { expect } from 'vitest'
import type { AwayInstance } from '../../src/requests/question.ts'
import type { RequestRow, RequestStory } from '../../src/requests/story.ts'

export interface Listed<Row = RequestRow> {
  readonly data: readonly Row[]
  readonly away: readonly AwayInstance[]
}

/** The stories of all calls with that id, once there is one: a call is kept when its response has gone out. */
export async function storiesOf(adminUrl: string, id: string, token?: string): Promise<Listed<RequestStory>> {
  const url = `${adminUrl}/v1/requests/${encodeURIComponent(id)}`
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const ask = (): Promise<Response> => fetch(url, { headers })
  await expect.poll(async () => (await ask()).status).toBe(200)
  return (await (await ask()).json()) as Listed<RequestStory>
}

/** The one story that ended. */
export async function storyOf(adminUrl: string, id: string): Promise<RequestStory> {
  let ended: readonly RequestStory[] = []
  await expect
    .poll(async () => {
      ended = (await storiesOf(adminUrl, id)).data.filter(({ isRunning }) => !isRunning)
      return ended.length
    })
    .toBe(1)
  return ended[0]!
}

export async function listRequests(adminUrl: string, query = ''): Promise<Listed> {
  return (await (await fetch(`${adminUrl}/v1/requests${query}`)).json()) as Listed
}
