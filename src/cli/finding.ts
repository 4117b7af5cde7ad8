/** What `sluice doctor` found in one place. `todo` says what to do, unless all is well. It never contains a secret. */
export interface Finding {
  readonly level: 'ok' | 'warn' | 'fail'
  readonly what: string
  readonly finding: string
  readonly todo?: string
}
