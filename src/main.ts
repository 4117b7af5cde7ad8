#!/usr/bin/env node
import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'

// What the compiler made of the code is kept, because it is much of what a start costs. It lies beside the program and not
// in a folder for temporary files: whoever writes there decides what is run. Where it can't be written, nothing is kept.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/compile', import.meta.url)))

// Not awaited: bin/sluice.cjs requires this file, and `require` takes no module that awaits.
if (isMainThread) void import('./cli/main.ts').then(({ main }) => main(process.argv))
else void import('./cli/find-thread.ts').then(({ findForMainThread }) => findForMainThread())
