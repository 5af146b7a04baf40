/*
 * One matcher for two dialects, both taken word by word as they are written [MQTT-4.7.3-4], [MQTT-3.3.2-3]: MQTT filters (`/`, `+`, `#`) and AMQP binding keys (`.`, `*`, `#`, where `#` may stand in the middle). Words are compared as they are
 * written [MQTT-4.7.3-4], [MQTT-3.3.2-3].
 *
 * Matching walks the words of the key once with the set of nodes reachable so far, like a small automaton: cost is bounded by
 * words × nodes whatever the patterns, so no pattern a client invents makes it explode. A node is in the set at most once per word.
 */

export interface Dialect {
  readonly separator: string
  readonly single: string
  readonly multi: string
  /** Keys whose first character this is are not matched by a pattern that begins with a wildcard [MQTT-4.7.2-1]. */
  readonly hidden: string | null
}

export const MQTT_DIALECT: Dialect = { separator: '/', single: '+', multi: '#', hidden: '$' }
export const AMQP_DIALECT: Dialect = { separator: '.', single: '*', multi: '#', hidden: null }

class Node<T> {
  readonly parent: Node<T> | null
  readonly word: string
  readonly isMulti: boolean
  readonly words = new Map<string, Node<T>>()
  single: Node<T> | null = null
  multi: Node<T> | null = null
  readonly values: T[] = []
  /** Last walk step that reached this node: keeps it from entering a set twice. */
  step = 0

  constructor(parent: Node<T> | null, word: string, isMulti: boolean) {
    this.parent = parent
    this.word = word
    this.isMulti = isMulti
  }

  get isEmpty(): boolean {
    return this.values.length === 0 && this.words.size === 0 && this.single === null && this.multi === null
  }
}

export class TopicTree<T> {
  readonly #dialect: Dialect
  readonly #root = new Node<T>(null, '', false)
  #step = 0
  #size = 0

  constructor(dialect: Dialect) {
    this.#dialect = dialect
  }

  /** How many values are held. */
  get size(): number {
    return this.#size
  }

  add(pattern: string, value: T): void {
    let node = this.#root
    for (const word of pattern.split(this.#dialect.separator)) node = this.#descend(node, word)
    node.values.push(value)
    this.#size++
  }

  /** Removes one value held under exactly this pattern; false if it is not there. */
  remove(pattern: string, value: T): boolean {
    let node: Node<T> = this.#root
    for (const word of pattern.split(this.#dialect.separator)) {
      const next = this.#child(node, word)
      if (next === null) return false
      node = next
    }
    const index = node.values.indexOf(value)
    if (index < 0) return false
    node.values.splice(index, 1)
    this.#size--
    this.#prune(node)
    return true
  }

  /** Calls `visit` with every value whose pattern matches `key`; a value held under several matching patterns comes once for each. */
  match(key: string, visit: (value: T) => void): void {
    const { separator, hidden } = this.#dialect
    const isHidden = hidden !== null && key.startsWith(hidden)
    let reached: Node<T>[] = []
    this.#step++
    this.#reach(reached, this.#root, isHidden)
    let isFirst = true
    for (const word of key.split(separator)) {
      const next: Node<T>[] = []
      this.#step++
      for (const node of reached) {
        if (node.isMulti) this.#reach(next, node, false)
        const exact = node.words.get(word)
        if (exact !== undefined) this.#reach(next, exact, false)
        if (node.single !== null && !(isFirst && isHidden)) this.#reach(next, node.single, false)
      }
      reached = next
      isFirst = false
      if (reached.length === 0) return
    }
    for (const node of reached) for (const value of node.values) visit(value)
  }

  /** Adds a node and, since `#` also stands for no word at all, the `#` below it. */
  #reach(set: Node<T>[], from: Node<T>, withoutMulti: boolean): void {
    for (let node: Node<T> | null = from; node !== null; node = withoutMulti ? null : node.multi) {
      if (node.step === this.#step) return
      node.step = this.#step
      set.push(node)
    }
  }

  #child(node: Node<T>, word: string): Node<T> | null {
    if (word === this.#dialect.single) return node.single
    if (word === this.#dialect.multi) return node.multi
    return node.words.get(word) ?? null
  }

  #descend(node: Node<T>, word: string): Node<T> {
    const known = this.#child(node, word)
    if (known !== null) return known
    if (word === this.#dialect.single) {
      node.single = new Node(node, word, false)
      return node.single
    }
    if (word === this.#dialect.multi) {
      node.multi = new Node(node, word, true)
      return node.multi
    }
    const child = new Node(node, word, false)
    node.words.set(word, child)
    return child
  }

  #prune(leaf: Node<T>): void {
    let node = leaf
    while (node.parent !== null && node.isEmpty) {
      const parent: Node<T> = node.parent
      if (parent.single === node) parent.single = null
      else if (parent.multi === node) parent.multi = null
      else parent.words.delete(node.word)
      node = parent
    }
  }
}
