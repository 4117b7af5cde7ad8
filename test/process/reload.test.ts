import { pino } from 'pino'
import { expect, it } from 'vitest'
import { ConfigError } from '../../src/config/problem.ts'
import { Reloader, type ReloadParts } from '../../src/process/reload.ts'

it.each<[string, Error, RegExp]>([
  [
    'a configuration is wrong',
    new ConfigError('sluice.yaml', [{ path: ['server', 'port'], message: 'must be' }]),
    /server\.port: must be/,
  ],
  [
    'it can not be read',
    Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' }),
    /^the system refused it: EMFILE: .*ulimit -n/,
  ],
  [
    'the program makes a mistake',
    new TypeError('x is not a function'),
    /^a mistake of the program: x is not a function/,
  ],
])('a reload is refused where %s, and the next one is heard', async (_, error, problem) => {
  const results: string[] = []
  const lines: string[] = []
  let isWrong = true
  const reloader = new Reloader({
    load: () => (isWrong ? Promise.reject(error) : Promise.resolve({ config: { upstreams: {} }, warnings: [] })),
    clients: { active: [] },
    apply: () => Promise.resolve({ result: 'unchanged', needRestart: [] }),
    counts: { count: (result: string) => results.push(result) },
    logger: pino({}, { write: (line: string) => void lines.push(line) }),
  } as unknown as ReloadParts)
  const reloaded = await reloader.reload()
  expect(reloaded).toEqual({ result: 'rejected', problems: [expect.stringMatching(problem)] })
  const [said] = (reloaded as { problems: readonly string[] }).problems
  expect(lines.join('')).toContain(said)
  isWrong = false
  expect((await reloader.reload()).result).toBe('unchanged')
  expect(results).toEqual(['rejected', 'unchanged'])
})
