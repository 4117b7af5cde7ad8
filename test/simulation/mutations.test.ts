import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { MUTATIONS } from './mutate.ts'

const run = promisify(execFile)
const here = import.meta.dirname
const CASES = { random: '400', saturated: '20', newcomer: '200', 'clock set': '200', 'keys lost': '20' }

it.each(Object.entries(MUTATIONS))('the simulator notices when: %s', async (name, { kind }) => {
  const args = ['--import', join(here, 'mutate.ts'), join(here, 'simulate.ts')]
  const cases = CASES[kind as keyof typeof CASES]
  const env = { ...process.env, MUTATION: name }
  const ended = run(process.execPath, [...args, '--seed', '1', '--kind', kind, '--cases', cases, '--until-broken'], {
    env,
  })
  await expect(ended).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(/^BROKEN seed/m) as string })
})
