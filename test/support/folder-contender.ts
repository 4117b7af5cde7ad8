import { LedgerFiles } from '../../src/ledger/embedded/ledger-files.ts'

/** Tries to have each folder that it is sent, and says whether it got it. */
process.on('message', (dir: string) => {
  try {
    new LedgerFiles(dir)
    process.send?.('locked')
  } catch (error) {
    process.send?.((error as Error).message)
  }
})
process.send?.('up')
