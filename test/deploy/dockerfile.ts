import { readText } from './repository.ts'

export interface Instruction {
  readonly name: string
  /** Everything behind the name, in one line. */
  readonly text: string
}

/** The stages of the Dockerfile, each beginning with its FROM. */
export function dockerfileStages(): Instruction[][] {
  const stages: Instruction[][] = []
  const text = readText('Dockerfile')
    .replaceAll(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, '')
  for (const line of text.split('\n')) {
    const [, name, rest] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (name === undefined || rest === undefined) continue
    if (name === 'FROM') stages.push([])
    stages.at(-1)?.push({ name, text: rest })
  }
  return stages
}

/** What the instructions of that name say, in the stage that becomes the image. */
export function imageInstructions(name: string): string[] {
  return (dockerfileStages().at(-1) ?? []).filter((instruction) => instruction.name === name).map(({ text }) => text)
}

/** The command and its arguments, where they are in the exec form, which needs no shell. */
export function execForm(text: string | undefined): string[] {
  const argv: unknown = JSON.parse(text ?? '')
  if (!Array.isArray(argv) || !argv.every((part) => typeof part === 'string')) throw new Error(`no exec form: ${text}`)
  return argv
}

export function imageCommand(): string[] {
  return execForm(imageInstructions('CMD')[0])
}

export function imageHealthCheck(): string[] {
  return execForm(/ CMD (\[.*\])$/.exec(imageInstructions('HEALTHCHECK')[0] ?? '')?.[1])
}

/** Variables that the image sets. */
export function imageEnvironment(): Record<string, string> {
  return Object.fromEntries(imageInstructions('ENV').map((text) => text.split('=', 2) as [string, string]))
}
