// Keeps the page up to date. Without this script the page asks again by itself, every few seconds.
const RETRY_MS = 5_000
/** The gateway says something every second. One that hangs, or that no network leads to, does not, and the connection stays open. */
const SILENT_MS = 10_000
const live = document.querySelector('#live')
const connection = document.querySelector('#connection')

connect()

function connect() {
  const events = new EventSource('/events')
  let timer
  const connectIn = (ms) => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      notConnected()
      events.close()
      connect()
    }, ms)
  }
  const hear = () => {
    connection.textContent = ''
    connectIn(SILENT_MS)
  }
  connectIn(SILENT_MS)
  events.addEventListener('state', ({ data }) => {
    hear()
    show(JSON.parse(data))
  })
  events.addEventListener('nothing-new', hear)
  events.addEventListener('signed-out', () => location.assign('/sign-in'))
  events.addEventListener('error', () => {
    notConnected()
    // A browser tries again by itself where the connection was lost, but not where the answer was an error, such as too many open pages.
    if (events.readyState === EventSource.CLOSED) connectIn(RETRY_MS)
  })
}

function notConnected() {
  connection.textContent = 'Not connected: what is below may be old.'
}

/** Replaces the sections that have changed, but for one in which a text is selected: it could not be copied any more. */
function show(text) {
  const next = new DOMParser().parseFromString(text, 'text/html')
  const shown = [...live.querySelectorAll('section')]
  for (const [i, section] of [...next.querySelectorAll('section')].entries()) {
    if (shown[i] === undefined) live.append(section)
    else if (shown[i].innerHTML !== section.innerHTML && !hasSelection(shown[i])) replace(shown[i], section)
  }
}

function hasSelection(section) {
  const selection = getSelection()
  return selection !== null && !selection.isCollapsed && selection.containsNode(section, true)
}

/** The tables stay scrolled as they were. What was focused is focused again: a link by where it leads, a table by its place. */
function replace(old, section) {
  const scrolled = tablesOf(old).map(({ scrollLeft }) => scrollLeft)
  const focused = old.contains(document.activeElement) ? document.activeElement : undefined
  const place = tablesOf(old).findIndex((table) => table.contains(focused))
  old.replaceWith(section)
  const tables = tablesOf(section)
  for (const [i, table] of tables.entries()) table.scrollLeft = scrolled[i] ?? 0
  if (focused === undefined) return
  const link = [...section.querySelectorAll('a')].find(({ href }) => href === focused.href)
  const again = link ?? tables[place]
  again?.focus({ preventScroll: true })
}

function tablesOf(section) {
  return [...section.querySelectorAll('.scroll')]
}
