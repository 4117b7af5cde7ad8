import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { readmeTable } from '../support/readme.ts'
import { COMMANDS } from './all.ts'

const root = join(import.meta.dirname, '../..')
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
const measuring = Object.keys(scripts).filter((name) => /^bench(:|$)/.test(name) && name !== 'bench:all')

it('runs every script that measures', () => {
  expect(COMMANDS.map(({ script }) => script)).toEqual(expect.arrayContaining(measuring))
})

it('has each of its commands in the table of benchmarks', () => {
  const listed = readmeTable('benchmark').map(({ benchmark = '' }) => benchmark.replace('npm run ', ''))
  expect(new Set(listed)).toEqual(new Set(COMMANDS.map(({ script }) => script)))
})

it('shows a command that fails as failed, and ends with 1', async () => {
  const ended = promisify(execFile)(process.execPath, [join(import.meta.dirname, 'all.ts'), '--only', 'bench:nothing'])
  await expect(ended).rejects.toMatchObject({
    code: 1,
    stdout: expect.stringMatching(/^ {2}failed {2}it ended with 1\n0 met, 0 missed, 1 commands failed$/m) as string,
  })
})

it('finds in the source what is switched off where nothing watches calls', async () => {
  const all = ['server/proxy', 'gateway/attempt', 'observe/series', 'usage/usage', 'gateway/limit-watch']
  const parts = all.map((part) => `await import('./src/${part}.ts')`).join('\n')
  const args = ['--import', './test/bench/switched.ts', '--input-type', 'module', '--eval', parts]
  await promisify(execFile)(process.execPath, args, { cwd: root })
})
