import * as yaml from 'yaml'
import { mayHoldSecret, type Path, type Problem } from './problem.ts'

/** A YAML file as it was read. The document is complete only if there are no problems. */
export interface YamlText {
  /** What was parsed: the text without a byte order mark, which would move the columns of the first line. */
  readonly text: string
  readonly document: yaml.Document
  readonly lines: yaml.LineCounter
  /** Why it can't be read: in the order of the file, each with line, column and what to do. */
  readonly problems: readonly Problem[]
}

interface Fault {
  readonly offset: number
  readonly message: string
  readonly path?: Path
  /** The parser lost its place here. Its errors behind this one are mostly wrong. */
  readonly isLast?: boolean
}

/**
 * Reads YAML 1.2. One mistake makes one problem, even if the parser reports several errors behind it. A problem repeats
 * only names of keys, because any other text may be a part of a secret.
 */
export function readYaml(written: string): YamlText {
  const text = written.replace(/^\uFEFF/, '')
  const { document, lines, unquoted } = parse(text)
  const faults = [
    ...unquoted.map((offset): Fault => ({ offset, message: UNQUOTED })),
    ...[...document.errors, ...document.warnings].map(faultOf),
    ...keyFaults(document, lines),
    ...aliasFaults(document),
  ].sort((a, b) => a.offset - b.offset)
  const last = faults.findIndex(({ isLast }) => isLast)
  const problems = faults.slice(0, last < 0 ? undefined : last + 1).map(({ offset, message, path = [] }) => {
    const { line, col } = lines.linePos(offset)
    return { path, message, line, column: col }
  })
  return { text, document, lines, problems }
}

/** The keys and indices that lead to a node. */
export function pathOf(node: unknown, ancestors: readonly unknown[]): Path {
  const path: Path = []
  const chain = [...ancestors, node]
  for (let i = 0; i < chain.length - 1; i++) {
    const parent = chain[i]
    const child = chain[i + 1]
    if (yaml.isSeq(parent)) path.push(parent.items.indexOf(child))
    else if (yaml.isMap(parent)) {
      const { key } = child as { key: unknown }
      path.push(yaml.isScalar(key) ? String(key.value) : '')
    }
  }
  return path
}

const UNQUOTED = 'between { } or [ ] a text with ${ in it needs quotes: write "${env:NAME}"'
/** A reference, and those that follow it in the same text. */
const REFERENCES = /^\$\{[^}\r\n]*\}?(?:[^\s,#$[\]{}]*\$\{[^}\r\n]*\})*/
/** The most unquoted references that are looked for. Each costs another parse of the whole file. */
const MOST_UNQUOTED = 100

/**
 * Parses a file in spite of unquoted references. Between brackets, the brace of an unquoted `${` breaks everything
 * behind it. So each such reference is replaced by letters and the file parsed again, until the first error has another
 * cause.
 */
function parse(text: string): { document: yaml.Document; lines: yaml.LineCounter; unquoted: number[] } {
  const unquoted: number[] = []
  for (let rest = text; ;) {
    const lines = new yaml.LineCounter()
    const document = yaml.parseDocument(rest, { lineCounter: lines, prettyErrors: false, uniqueKeys: false })
    const offset = firstErrorOffset(document) - 1
    const reference = rest.startsWith('${', offset) ? REFERENCES.exec(rest.slice(offset))![0] : undefined
    if (reference === undefined || unquoted.length === MOST_UNQUOTED) return { document, lines, unquoted }
    unquoted.push(offset)
    rest = rest.slice(0, offset) + 'x'.repeat(reference.length) + rest.slice(offset + reference.length)
  }
}

function firstErrorOffset({ errors }: yaml.Document): number {
  let first = Number.NaN
  for (const error of errors) if (faultOf(error).isLast && !(error.pos[0] >= first)) first = error.pos[0]
  return first
}

/** Turns an error of the parser into a problem, without what the parser quotes from the file. */
function faultOf({ code, message, pos }: yaml.YAMLError): Fault {
  const [offset] = pos
  const passing = PASSING[code]
  if (passing !== undefined) return { offset, message: passing }
  // The parser reports what went wrong in itself as a mistake in the text.
  if (message.startsWith('Maximum call stack size')) return { offset, isLast: true, message: TOO_DEEP }
  const explained = LAST[code]?.(message) ?? `${message.replace(/: .*/s, '')}: ${STRAY}`
  return { offset, isLast: true, message: explained }
}

/** Faults behind which the parser goes on as if there were none. */
const PASSING: { readonly [Code in yaml.YAMLError['code']]?: string } = {
  BAD_SCALAR_START: 'a text that begins with this character needs quotes',
  BAD_DQ_ESCAPE: 'there is no such escape in a text in double quotes: write \\\\ for a backslash, or use single quotes',
  TAG_RESOLVE_FAILED:
    'tags mean nothing here: write "${env:NAME}" for a variable, and quotes around a text that begins with "!"',
  BAD_ALIAS: 'a text that begins with "*" or "&" needs quotes',
}

/** What to do about faults behind which the parser loses its place, given its own message. */
const LAST: { readonly [Code in yaml.YAMLError['code']]?: (message: string) => string } = {
  TAB_AS_INDENT: () => 'a tab can not indent: use spaces',
  MULTIPLE_DOCS: () => 'a second document begins here, and only one is read: take "---" out',
  BAD_INDENT: (message) =>
    `${message}: ${message.startsWith('Flow') ? 'is its bracket missing, or behind a "#"?' : 'indent all keys of one mapping alike'}`,
  BLOCK_AS_IMPLICIT_KEY: (message) => `${message}: ${COLON}`,
  MULTILINE_IMPLICIT_KEY: (message) => `${message}: ${COLON}`,
  MISSING_CHAR: (message) => {
    if (message.startsWith('Implicit')) return `${message}: ${COLON}`
    return /^Missing closing ['"]quote$/.test(message)
      ? 'a text in quotes is not closed: its last quote is missing'
      : message
  },
}

const TOO_DEEP = 'lists or mappings are nested too deeply here: is a bracket missing?'

const COLON = 'write "key: value", indent alike, and put quotes around a text with ": " in it'
const STRAY = 'a bracket or quote is missing or too many, or a text with special characters needs quotes'

/** Names that the schema library drops, or stumbles over. */
const LOST = new Set(['__proto__', 'constructor', 'prototype'])

/** Finds keys that occur twice in a mapping, of which only the last would count, and those that can be no names. */
function keyFaults(document: yaml.Document, lines: yaml.LineCounter): Fault[] {
  const faults: Fault[] = []
  yaml.visit(document, {
    Map(_, map, ancestors) {
      const first = new Map<string, number>()
      for (const pair of map.items) {
        const { key } = pair
        if (yaml.isCollection(key)) {
          const offset = key.range?.[0] ?? 0
          faults.push({ offset, message: 'a mapping or a list is no key: put quotes around a text with { or [ in it' })
        }
        if (!yaml.isScalar(key)) continue
        const name = String(key.value)
        const offset = key.range?.[0] ?? 0
        const before = first.get(name)
        if (LOST.has(name)) {
          const message = `"${name}" is no valid name: it means something else in JavaScript`
          faults.push({ offset, message, path: pathOf(pair, [...ancestors, map]) })
        }
        if (name === '<<')
          faults.push({ offset, message: 'YAML 1.2 has no merge key "<<": write out what it stands for' })
        if (before === undefined) first.set(name, offset)
        else {
          const message = `${mayHoldSecret(name) ? 'this key' : `the key "${name}"`} is given twice, first in line ${lines.linePos(before).line}: keep one of them`
          faults.push({ offset, message, path: pathOf(pair, [...ancestors, map]) })
        }
      }
    },
  })
  return faults
}

/**
 * Finds aliases without an anchor. Such an alias is mostly a text that begins with "*", perhaps a secret, so it is not
 * repeated.
 */
function aliasFaults(document: yaml.Document): Fault[] {
  const faults: Fault[] = []
  yaml.visit(document, {
    Alias(_, node, ancestors) {
      if (node.source === '') return
      const meant = node.resolve(document)
      if (meant !== undefined && !ancestors.includes(meant)) return
      const message =
        meant === undefined
          ? 'there is no anchor of this name before it; put quotes around a text that begins with "*"'
          : 'this alias stands for what it is a part of, which would have no end: write out what is meant'
      faults.push({ offset: node.range?.[0] ?? 0, message })
    },
  })
  return faults
}
