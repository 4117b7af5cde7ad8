#!/usr/bin/env node
import { main } from './cli/main.ts'

// Not awaited: bin/sluice.cjs requires this file, and `require` takes no module that awaits.
void main(process.argv)
