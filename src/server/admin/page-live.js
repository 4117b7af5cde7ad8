// Keeps the page up to date. Without this script the page asks again by itself, every few seconds.
const live = document.querySelector('#live')
const connection = document.querySelector('#connection')
const events = new EventSource('/events')

events.addEventListener('state', ({ data }) => {
  connection.textContent = ''
  const next = new DOMParser().parseFromString(JSON.parse(data), 'text/html')
  const sections = [...next.querySelectorAll('section')]
  const shown = [...live.querySelectorAll('section')]
  // What did not change stays, and with it what the reader has selected or focused.
  for (const [i, section] of sections.entries()) {
    if (shown[i] === undefined) live.append(section)
    else if (shown[i].innerHTML !== section.innerHTML && !shown[i].contains(document.activeElement))
      shown[i].replaceWith(section)
  }
})

events.addEventListener('signed-out', () => location.assign('/sign-in'))

events.addEventListener('error', () => {
  connection.textContent = 'Not connected: what is below may be old.'
})
