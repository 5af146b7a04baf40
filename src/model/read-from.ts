/**
 * Where reading a stream begins: at the oldest message kept; at the newest; at the next to come; at the message with that sequence number or the first kept behind it; at the
 * first message that may have been accepted at that time or later, milliseconds since 1970.
 */
export type ReadFrom = 'first' | 'last' | 'next' | { readonly sequence: number } | { readonly timeMs: number }

/** What `parseReadFrom` takes, for messages. */
export const READ_FROM_FORMS = 'first, last, next, a sequence number or a UTC time such as 2026-07-01T12:00:00Z'

/** As it stands in `$stream/NAME/FROM`, `?from=` and `--from`; null: none of its forms. */
export function parseReadFrom(text: string): ReadFrom | null {
  if (text === 'first' || text === 'last' || text === 'next') return text
  if (/^\d{1,15}$/.test(text)) return { sequence: Number(text) }
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?Z$/.test(text)) return null
  const timeMs = Date.parse(text)
  // The parser rolls 31 June over to July.
  if (Number.isNaN(timeMs) || !new Date(timeMs).toISOString().startsWith(text.slice(0, 10))) return null
  return { timeMs }
}
