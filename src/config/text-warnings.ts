import { isScalar, type Node, type Scalar, visit } from 'yaml'
import { formatPath, type Path } from './problem.ts'
import { pathOf, readYaml } from './yaml.ts'

/**
 * Warns of text in a configuration file that is valid but probably means something else than intended. Names the line,
 * and does not repeat the text, which may be a secret.
 */
export function textWarnings(text: string): string[] {
  const { document, lines, problems } = readYaml(text)
  if (problems.length > 0) return []
  const warnings: string[] = []
  const used = new Set<string>()
  visit(document, { Alias: (_, { source }) => void used.add(source) })
  const warn = (node: Node, path: Path, message: string): void => {
    const { line } = lines.linePos(node.range?.[0] ?? 0)
    warnings.push(`line ${line}: ${formatPath(path)} ${message}`)
  }
  visit(document, {
    Node(key, node, ancestors) {
      if (key === 'key') return
      const path = pathOf(node, ancestors)
      if ('anchor' in node && node.anchor !== undefined && !used.has(node.anchor)) {
        warn(node, path, 'begins with an anchor that no alias uses: put quotes around a text that begins with "&"')
      }
      if (!isScalar(node)) return
      if (isCut(node, text)) warn(node, path, CUT)
      if (typeof node.value === 'string' && VARIABLE.test(node.value)) warn(node, path, LITERAL)
      if (typeof node.value === 'number' && /^[-+]?0\d/.test(node.source ?? '')) {
        warn(node, path, `is read as the decimal number ${node.value}`)
      }
    },
  })
  return warnings
}

const CUT = 'ends before " #", which begins a comment: put quotes around the text, or a space behind the "#"'
const LITERAL = 'is taken literally, "$" and all: write ${env:NAME} for an environment variable'

/**
 * Matches `$NAME` and `$(NAME)`. Matches `$name` only as a whole word, because paths of APIs have parts such as
 * `/v1/$metadata`.
 */
const VARIABLE = /(?<![\w$])\$(?:[A-Z_][A-Z0-9_]*(?!\w)|\([A-Za-z_]\w*\))|(?<!\S)\$[A-Za-z_]\w*(?!\S)/

/** Whether a "#" that was probably meant as text begins a comment. A real comment mostly has a space behind the "#". */
function isCut({ type, range, value }: Scalar, text: string): boolean {
  if (type !== 'PLAIN' || range == null || value === null) return false
  return /^[ \t]+#[^\s#]/.test(text.slice(range[1], range[1] + 100))
}
