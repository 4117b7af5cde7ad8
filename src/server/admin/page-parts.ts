import { type AwayInstance, noAnswerOf } from '../../requests/question.ts'
import { type Html, html, type Part } from './html.ts'

/** A table, or the text `none` if it has no rows. On a narrow screen the table scrolls and the page does not. */
export function table(caption: string, columns: readonly string[], rows: readonly Html[], none: string): Html {
  if (rows.length === 0) return html`<p class="none">${none}</p>`
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0">
    <table>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col">${column}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
  </div>`
}

/** A row of a table. `head` says what it is about, where the row has a head. */
export function row(
  cells: readonly Html[],
  { head, isFailing = false }: { head?: string; isFailing?: boolean } = {},
): Html {
  return html`<tr class="${isFailing && 'failing'}">
    ${head !== undefined && html`<th scope="row">${head}</th>`} ${cells}
  </tr>`
}

export function cell(content: Part): Html {
  return html`<td>${content}</td>`
}

/** A cell with a number or a time. */
export function numberCell(content: Part): Html {
  return html`<td class="number">${content}</td>`
}

/** The frame of every page. `owner` is undefined where nobody is signed in. */
export function page(title: string, head: Html | undefined, body: Html, owner: string | undefined): string {
  const signOut =
    owner !== undefined &&
    html`<form method="post" action="/sign-out"><span>${owner}</span> <button>Sign out</button></form>`
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}</title>
        <link rel="stylesheet" href="/page.css" />
        ${head}
      </head>
      <body>
        <header>
          <h1><a href="/">Sluice</a></h1>
          <p id="connection" role="status"></p>
          ${signOut}
        </header>
        ${body}
      </body>
    </html>`.text
}

/** A line for each instance that did not answer, so that nobody takes what is shown for complete. */
export function awayNotes(away: readonly AwayInstance[]): readonly Html[] {
  return away.map((one) => html`<p class="away">There is ${noAnswerOf(one)}.</p>`)
}
