import { writeFileSync } from 'node:fs'
import { ROOT } from '../deploy/repository.ts'
import { page } from './clients.ts'

writeFileSync(`${ROOT}/docs/clients-tried.md`, page())
