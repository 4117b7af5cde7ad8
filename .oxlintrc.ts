import { relative } from 'node:path'
import { defineConfig, type OxlintOverride } from 'oxlint'

/**
 * The folders of `src`, the highest first, each with all that it may import, types included. Imports point down: a folder
 * stands above all that it names. To add an arrow is a decision about the design; to need one upwards means that a type or a
 * function lies in the wrong folder.
 */
export const LAYERS: Readonly<Record<string, string>> = {
  // The program, and the library that another program imports.
  '.': 'cli process server/admin config observe schema',
  cli: 'process forward-proxy server/admin config requests gateway usage credentials sandbox config/presets audit clients secrets ledger/embedded records observe redis routing ledger schema http files net time packages',
  process:
    'webhooks server/admin forward-proxy server config traces requests gateway usage credentials audit clients secrets cache ledger/regions ledger/redis ledger/workers records ledger/embedded observe queue redis ledger schema resilience http net time packages',

  // Who is told when something is wrong.
  webhooks: 'server/admin clients observe schema upstream resilience http net time',

  // Its ports.
  'server/admin':
    'server config requests gateway usage audit clients config/presets records observe schema resilience http net time',
  'forward-proxy': 'server gateway clients observe schema files net time',
  server: 'traces requests gateway usage clients observe routing schema upstream http net time packages',

  // What became of calls: as spans for others, and over all instances.
  traces: 'requests gateway observe schema http',
  requests: 'gateway usage observe redis ledger schema resilience time',

  // A configuration as it is read, and a call from its start to its end.
  config: 'credentials clients secrets config/presets answers schema http net time',
  gateway:
    'usage credentials clients cache config/presets observe queue routing answers ledger schema upstream resilience http net time',

  // What a call needs.
  usage: 'observe queue redis schema files time',
  credentials: 'secrets observe redis routing schema upstream resilience http time packages',
  clients: 'records observe queue routing ledger schema net time packages',
  sandbox: 'config/presets routing schema http time',
  'config/presets': 'routing schema',
  cache: 'observe redis schema http time',
  queue: 'ledger http time',
  'ledger/regions': 'ledger time',
  'ledger/redis': 'ledger redis time',
  'ledger/workers': 'ledger/embedded ledger time',
  'ledger/embedded': 'ledger files time',
  ledger: 'http time',
  routing: 'schema http',
  answers: 'schema http',
  upstream: 'http net time packages',

  // What is kept, and where.
  secrets: 'records observe schema files resilience time packages',
  audit: 'records observe redis schema files time',
  records: 'observe redis schema files time',
  redis: 'schema time',

  // What everything may stand on.
  observe: 'schema resilience packages',
  schema: 'http time',
  resilience: 'time',
  http: 'time',
  files: 'time',
  packages: '',
  net: '',
  time: '',
}

/** Of these a start loads a part only. */
const LOADED_IN_PART = {
  'node:http': 'src/http/node-http.ts',
  undici: 'src/packages/undici.ts',
  '@prometheus-io/client': 'src/packages/prometheus.ts',
  '@fastify/http-proxy': 'src/packages/http-proxy.ts',
}

/** A folder may import its own files, those of the folders below that it names, and the version of the program. */
function layerRule(folder: string, below: string): OxlintOverride {
  const allowed = below.split(' ').filter((name) => name !== '')
  const specifiers = allowed.map((name) => {
    const path = relative(folder, name)
    return `!${path.startsWith('.') ? path : `./${path}`}/*.ts`
  })
  return {
    files: [folder === '.' ? 'src/*.ts' : `src/${folder}/*.ts`],
    rules: {
      'eslint/no-restricted-imports': [
        'error',
        {
          paths: Object.entries(LOADED_IN_PART).map(([name, file]) => {
            return { name, allowTypeImports: true, message: `import values from ${file}` }
          }),
          patterns: [
            {
              group: ['../**', './*/**', ...specifiers, '!**/manifest.ts'],
              message: `src/${folder} may import only ${allowed.join(', ') || 'its own files'}: see LAYERS in .oxlintrc.ts`,
            },
          ],
        },
      ],
    },
  }
}

export default defineConfig({
  plugins: ['typescript', 'unicorn', 'oxc', 'import', 'promise', 'node'],
  categories: {
    correctness: 'error',
    suspicious: 'error',
    perf: 'error',
  },
  options: {
    typeAware: true,
  },
  env: {
    node: true,
    es2026: true,
  },
  rules: {
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/no-explicit-any': 'error',
    'typescript/consistent-type-imports': 'error',
    'eslint/no-unused-vars': 'error',
    'eslint/no-await-in-loop': 'off',
    'eslint/no-shadow': 'off',
    'unicorn/no-array-sort': 'off',
    // Types count, too: files that need each other are one file, or a type of them belongs elsewhere.
    'import/no-cycle': ['error', { ignoreTypes: false }],
    'typescript/no-unsafe-type-assertion': 'off',
    'typescript/unbound-method': 'off',
    'typescript/consistent-return': 'off',
    'import/no-named-as-default': 'off',
    'promise/always-return': 'off',
    'eslint/no-new': 'off',
    'eslint/no-unmodified-loop-condition': 'off',
  },
  overrides: [
    {
      files: ['test/**'],
      rules: {
        'unicorn/consistent-function-scoping': 'off',
        'unicorn/no-useless-spread': 'off',
        'eslint/no-unmodified-loop-condition': 'off',
      },
    },
    ...Object.entries(LAYERS).map(([folder, below]) => layerRule(folder, below)),
  ],
})
