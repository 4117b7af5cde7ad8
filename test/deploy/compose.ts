import { parse } from 'yaml'
import { readText } from './repository.ts'

export interface Service {
  readonly image: string
  readonly build?: string
  readonly pull_policy?: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly volumes?: readonly string[]
  readonly ports?: readonly string[]
  readonly healthcheck?: { readonly test: readonly string[] }
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
  readonly restart?: string
  readonly read_only?: boolean
  readonly cap_drop?: readonly string[]
  readonly security_opt?: readonly string[]
  readonly stop_grace_period?: string
}

export interface Compose {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, unknown>>
}

export function readCompose(): Compose {
  return parse(readText('docker-compose.yml'), { merge: true }) as Compose
}

export function service(name: string): Service {
  const found = readCompose().services[name]
  if (found === undefined) throw new Error(`there is no service ${name}`)
  return found
}

/** The environment that a service has when nothing is set outside: `${NAME:-default}` is its default. */
export function environmentOf(name: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(service(name).environment ?? {}).map(([key, value]) => [
      key,
      value.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1'),
    ]),
  )
}

/** Command and arguments of a service's health check, which must be in the form that needs no shell. */
export function healthCheckOf(name: string): string[] {
  const [form, ...argv] = service(name).healthcheck?.test ?? []
  if (form !== 'CMD') throw new Error(`the health check of ${name} is not in the exec form`)
  return argv
}

/** The key that a comment of the demo's configuration gives away. */
export function demoKey(): string {
  const [, key] = /# DEMO key[^:\n]*: (\S+)/.exec(readText('deploy/compose/sluice.yaml')) ?? []
  if (key === undefined) throw new Error('the demo key is not in the configuration')
  return key
}
