/**
 * A flat copy of a text, or of two texts joined. V8 keeps a part of a longer text as a reference to that one (a sliced string), and a sum as
 * a reference to both parts (a cons string). Such a reference keeps the longer text in memory. And one of them makes `JSON.stringify` of a
 * whole object half as fast.
 */
export function flatCopy(first: string, second = ''): string {
  if (first !== '' && second !== '') return [first, second].join('')
  const text = first + second
  // `join` copies its parts, unless only one of them is not empty.
  return [text.slice(0, 1), text.slice(1)].join('')
}
