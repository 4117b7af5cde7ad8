import { type Document, isMap, isNode, isScalar, isSeq, type Node, type Pair } from 'yaml'
import type { FoundConfig } from './find.ts'
import { textWarnings, warningsOf } from './warnings.ts'
import { readYaml } from './yaml.ts'

/** The warnings of a configuration, written as its errors are: `sluice.yaml:20:5: warning: upstreams.x.url is …`, in the order of the file. */
export function placedWarnings({ config, source, text }: FoundConfig): string[] {
  const read = readYaml(text ?? '')
  const { document, lines, problems } = read
  const placed = [
    ...textWarnings(read),
    ...warningsOf(config).map((warning) => {
      const offset = problems.length === 0 ? nodeOf(warning, document)?.range?.[0] : undefined
      const { line, col } = offset === undefined ? { line: 0, col: 0 } : lines.linePos(offset)
      return { line, column: col, warning }
    }),
  ]
  placed.sort((a, b) => a.line - b.line || a.column - b.column)
  return placed.map(({ line, column, warning }) => {
    return `${source}${line === 0 ? '' : `:${line}:${column}`}: warning: ${warning}`
  })
}

/** The node that a warning begins with the path of, or else the nearest above it; undefined if it begins with none. */
function nodeOf(warning: string, document: Document): Node | undefined {
  let node: unknown = document.contents
  let rest = warning
  let found: Node | undefined
  for (;;) {
    if (isMap(node)) {
      const pair = pairOf(node.items, rest)
      if (pair === undefined) return found
      rest = rest.slice(String(pair.key.value).length).replace(/^\./, '')
      node = pair.value
      found = isScalar(node) ? node : pair.key
    } else if (isSeq(node)) {
      const [step = '', index] = /^\[(\d+)\]\.?/.exec(rest) ?? []
      node = node.items[Number(index)]
      if (!isNode(node)) return found
      rest = rest.slice(step.length)
      found = node
    } else return found
  }
}

type Named = Pair & { readonly key: Node & { readonly value: unknown } }

/** A name may have dots, and be the beginning of another one. */
function pairOf(items: readonly Pair[], rest: string): Named | undefined {
  const named = items.filter((pair): pair is Named => {
    if (!isScalar(pair.key)) return false
    const name = String(pair.key.value)
    return rest.startsWith(name) && /^(?:[.[ ]|$)/.test(rest.slice(name.length))
  })
  return named.toSorted((a, b) => String(b.key.value).length - String(a.key.value).length)[0]
}
