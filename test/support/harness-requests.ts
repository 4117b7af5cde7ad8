import { readFileSync } from 'node:fs'

export interface SampleRequest {
  readonly method: string
  readonly url: string
  readonly contentType: string | undefined
  readonly body: string
  readonly charges: readonly string[]
  readonly isListed: boolean
}

/** What generated clients send for so many bytes: nothing, an empty object, or null. */
const BODIES: Record<string, string> = { 0: '', 2: '{}', 4: 'null' }

/** Four hundred requests as a generated client of the Harness API sends them. The account in them is `acct1234`. */
export const harnessRequests: readonly SampleRequest[] = readFileSync(
  new URL('../data/harness-requests.tsv', import.meta.url),
  'utf8',
)
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [method = '', url = '', contentType, bytes = '', charges = '', source] = line.split('\t')
    return {
      method,
      url,
      contentType: contentType === '-' ? undefined : contentType,
      body: BODIES[bytes] ?? '',
      charges: charges.split('+'),
      isListed: source === 'listed',
    }
  })
