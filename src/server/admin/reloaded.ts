/** The result of a reload. Places are paths of keys, such as `upstreams.harness.retry`. */
export type Reloaded =
  /** The new configuration is in force for calls that come from now on. */
  | { readonly result: 'applied'; readonly changed: readonly string[]; readonly needRestart: readonly string[] }
  | { readonly result: 'unchanged'; readonly needRestart: readonly string[] }
  /** The problems because of which nothing has changed. */
  | { readonly result: 'rejected'; readonly problems: readonly string[] }
