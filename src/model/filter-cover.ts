/*
 * What MQTT filters have in common, judged by their text alone. A topic is a filter that matches itself only.
 *
 * `#` matches the level above, too [MQTT-4.7.1-1]. Where there is no topic that ends there, `#` and `/#`, it says the same as `+/#` and `/+/#`, and is read
 * so. A topic that begins with `$` is matched by neither `#` nor `+/#` [MQTT-4.7.2-1].
 */

/** A filter taken apart. */
export type FilterLevels = readonly string[]

export function filterLevels(filter: string): FilterLevels {
  if (filter === '#') return ['+', '#']
  if (filter === '/#') return ['', '+', '#'] // a topic has one character at least [MQTT-4.7.3-1]
  return filter.split('/')
}

/** Whether `pattern` matches every topic that `filter` matches. */
export function covers(pattern: FilterLevels, filter: FilterLevels): boolean {
  for (let at = 0; at < pattern.length; at++) {
    const level = pattern[at]
    if (level === '#') return true
    const other = filter[at]
    // A filter that goes on with `#` matches topics that end here, and those with any level.
    if (other === undefined || other === '#') return false
    if (level === '+' ? at === 0 && other.startsWith('$') : level !== other) return false
  }
  return filter.length === pattern.length
}

/** Whether there is a topic that both match. */
export function overlaps(a: FilterLevels, b: FilterLevels): boolean {
  const most = Math.max(a.length, b.length)
  for (let at = 0; at < most; at++) {
    const [left, right] = [a[at], b[at]]
    if (left === '#' || right === '#') return true
    if (left === undefined || right === undefined) return false
    if (left !== right && !(isMatched(left, right, at) || isMatched(right, left, at))) return false
  }
  return true
}

/** Whether `+` stands for this level [MQTT-4.7.1-2]. */
const isMatched = (wildcard: string, level: string, at: number): boolean =>
  wildcard === '+' && !(at === 0 && level.startsWith('$'))
