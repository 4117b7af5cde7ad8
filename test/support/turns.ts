/** Counts the turns of the event loop until it is disposed of. Work that delays calls takes few of them. */
export function countTurns(): Disposable & { readonly count: number } {
  let count = 0
  let next = setImmediate(turn)
  function turn(): void {
    count++
    next = setImmediate(turn)
  }
  return {
    get count() {
      return count
    },
    [Symbol.dispose]: () => clearImmediate(next),
  }
}
