/** The candidate a mistyped word most likely meant, or null when none is close. */
export function nearestWord(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null
  // A third of the letters may be wrong; further away a guess misleads more than it helps.
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const candidate of candidates) {
    const distance = distanceOf(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** `warning` for `warn`, `mem` for `memory`: a word cut short or drawn out is one mistake. */
function distanceOf(from: string, to: string): number {
  const isPart = Math.min(from.length, to.length) > 2 && (from.startsWith(to) || to.startsWith(from))
  return isPart ? Math.min(1, editDistance(from, to)) : editDistance(from, to)
}

/** Fewest insertions, deletions, substitutions and swaps of neighbours that turn one word into the other. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const row = [i]
    for (let j = 1; j <= to.length; j++) {
      const cost = from[i - 1] === to[j - 1] ? 0 : 1
      let distance = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + cost)
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) {
        distance = Math.min(distance, (beforeLast[j - 2] ?? 0) + 1)
      }
      row.push(distance)
    }
    beforeLast = last
    last = row
  }
  return last[to.length] ?? 0
}
