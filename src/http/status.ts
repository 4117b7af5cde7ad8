/** Whether a status is one of these, or of a class of these such as `4xx`. */
export function isStatusOf(statuses: ReadonlySet<number | string>, status: number): boolean {
  return statuses.has(status) || statuses.has(`${Math.floor(status / 100)}xx`)
}
