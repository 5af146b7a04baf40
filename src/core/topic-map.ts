/*
 * A value per topic, found by filter: the inverse of topic-tree.ts, which holds filters and is asked with a topic. MQTT's dialect only.
 *
 * Invariants
 * - A node without a value is the root or has two children at least: there are at most twice as many nodes as topics, however deep these are.
 * - The path of a node never changes; where a branch begins or ends a node is put above it or taken out. So a walk that pauses goes on after any change: it finds every
 *   topic that was there all the time exactly once, and may or may not find those that came or went meanwhile.
 * - A walk visits a node at most once whatever the filter, since `#` stands last only: each level of a topic is compared with one level of the filter.
 */
import { MQTT_DIALECT } from './topic-tree.ts'

const { separator: SEPARATOR, single: SINGLE, multi: MULTI } = MQTT_DIALECT
/** Topics that begin so are not matched by a filter that begins with a wildcard. */
const HIDDEN = '$'

class Node<V> {
  readonly path: string
  /** Null: the root. */
  parent: Node<V> | null
  /** By the level that follows `path`. */
  children: Map<string, Node<V>> | null = null
  value: V | null = null

  constructor(path: string, parent: Node<V> | null) {
    this.path = path
    this.parent = parent
  }

  /** Where the next level begins in the paths of its children. */
  get end(): number {
    return this.parent === null ? 0 : this.path.length + 1
  }
}

export class TopicMap<V extends object> {
  readonly #root = new Node<V>('', null)
  #size = 0

  /** How many topics have a value. */
  get size(): number {
    return this.#size
  }

  get(topic: string): V | null {
    return this.#find(topic)?.value ?? null
  }

  #find(topic: string): Node<V> | null {
    let node = this.#root
    while (node.end <= topic.length) {
      const child = node.children?.get(levelAt(topic, node.end))
      if (child === undefined || !isWithin(child.path, topic)) return null
      node = child
    }
    return node
  }

  /** Gives a topic a value, in the place of the one it has. */
  set(topic: string, value: V): void {
    let node = this.#root
    while (node.end <= topic.length) node = this.#descend(node, topic)
    if (node.value === null) this.#size++
    node.value = value
  }

  /** The child of `node` on the way to a topic. */
  #descend(node: Node<V>, topic: string): Node<V> {
    const level = levelAt(topic, node.end)
    node.children ??= new Map()
    const child = node.children.get(level)
    if (child !== undefined && isWithin(child.path, topic)) return child
    const made = new Node(child === undefined ? topic : commonPath(child.path, topic), node)
    node.children.set(level, made)
    if (child !== undefined) {
      made.children = new Map([[levelAt(child.path, made.end), child]])
      child.parent = made
    }
    return made
  }

  /** False if the topic has no value. */
  delete(topic: string): boolean {
    const node = this.#find(topic)
    if (node === null || node.value === null) return false
    node.value = null
    this.#size--
    const { parent } = node
    if (node.children === null && parent !== null) {
      parent.children?.delete(levelAt(topic, parent.end))
      if (parent.children?.size === 0) parent.children = null
      this.#takeOut(parent)
    } else {
      this.#takeOut(node)
    }
    return true
  }

  /** Takes a node out that neither has a value nor branches. */
  #takeOut({ parent, path, value, children }: Node<V>): void {
    if (parent === null || value !== null || children?.size !== 1) return
    for (const only of children.values()) {
      only.parent = parent
      parent.children?.set(levelAt(path, parent.end), only)
    }
  }

  /** All values in whatever order, which must not change meanwhile. */
  *values(): Generator<V> {
    const nodes: Node<V>[] = [this.#root]
    for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
      if (node.value !== null) yield node.value
      if (node.children !== null) for (const child of node.children.values()) nodes.push(child)
    }
  }

  /** The values whose topics match a filter, as far as `isWanted` when it comes to them, a part at a time. */
  walk(filter: string, isWanted: (value: V) => boolean): TopicWalk<V> {
    return new TopicWalk(this.#root, filter, isWanted)
  }
}

/** A walk through the topics that match a filter. What it holds grows with the depth of the topics only. */
export class TopicWalk<V extends object> {
  /** Nothing is left. */
  isDone = false
  /** How many nodes it has looked at. */
  visited = 0
  readonly #isWanted: (value: V) => boolean
  readonly #levels: readonly string[]
  /** The filter ends with `#`: what is below the levels matches too, and so does what they lead to [MQTT-4.7.1-2]. */
  readonly #isMulti: boolean
  /** Children to be visited, and how many levels lead to each. */
  readonly #stack: { readonly nodes: Iterator<Node<V>>; readonly from: number; readonly depth: number }[] = []

  constructor(root: Node<V>, filter: string, isWanted: (value: V) => boolean) {
    this.#isWanted = isWanted
    const levels = filter.split(SEPARATOR)
    this.#isMulti = levels.at(-1) === MULTI
    this.#levels = this.#isMulti ? levels.slice(0, -1) : levels
    this.#push(root, 0)
  }

  /** The next match; null: there is none among the next `steps` nodes, or `isDone`. */
  next(steps: number): V | null {
    for (let step = 0; step < steps; step++) {
      this.visited++
      const top = this.#stack.at(-1)
      if (top === undefined) {
        this.isDone = true
        return null
      }
      const { value: node, done } = top.nodes.next()
      if (done === true) {
        this.#stack.pop()
        continue
      }
      const depth = this.#match(node.path, top.from, top.depth)
      if (depth < 0) continue
      this.#push(node, depth)
      if (depth >= this.#levels.length && node.value !== null && this.#isWanted(node.value)) return node.value
    }
    return null
  }

  /** How many levels of the path there are, or -1 if those from `from` on do not match. */
  #match(path: string, from: number, before: number): number {
    let depth = before
    for (let at = from; at <= path.length; ) {
      const wanted = this.#levels[depth]
      if (wanted === undefined && !this.#isMulti) return -1
      if (depth === 0 && path.startsWith(HIDDEN) && (wanted === undefined || wanted === SINGLE)) return -1 // [MQTT-4.7.2-1]
      const end = levelEnd(path, at)
      if (wanted !== undefined && wanted !== SINGLE && !isLevel(wanted, path, at, end)) return -1
      at = end + 1
      depth++
    }
    return depth
  }

  #push(node: Node<V>, depth: number): void {
    const { children, end } = node
    if (children === null) return
    const wanted = this.#levels[depth]
    if (wanted === undefined && !this.#isMulti) return
    const nodes = wanted === undefined || wanted === SINGLE ? children.values() : childOf(children, wanted)
    this.#stack.push({ nodes, from: end, depth })
  }
}

/** Looked for when it is visited, so that it is the one that is there then. */
function* childOf<V>(children: ReadonlyMap<string, Node<V>>, level: string): Generator<Node<V>> {
  const child = children.get(level)
  if (child !== undefined) yield child
}

function levelEnd(path: string, at: number): number {
  const end = path.indexOf(SEPARATOR, at)
  return end < 0 ? path.length : end
}

const levelAt = (path: string, at: number): string => path.slice(at, levelEnd(path, at))

const isLevel = (level: string, path: string, at: number, end: number): boolean =>
  end - at === level.length && path.startsWith(level, at)

/** Whether the levels of `path` are the first of `topic`. */
const isWithin = (path: string, topic: string): boolean =>
  topic.startsWith(path) && (topic.length === path.length || topic[path.length] === SEPARATOR)

/** The levels with which both begin; there is one at least. */
function commonPath(one: string, other: string): string {
  let end = levelEnd(one, 0)
  while (end < one.length) {
    const next = levelEnd(one, end + 1)
    if (!isWithin(one.slice(0, next), other)) break
    end = next
  }
  return one.slice(0, end)
}
