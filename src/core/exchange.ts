import type { Binding } from './binding.ts'
import { type Dialect, TopicTree } from './topic-tree.ts'

/** A topic exchange: hands out the bindings whose pattern matches a key. */
export class TopicExchange {
  readonly name: string
  readonly #tree: TopicTree<Binding>

  constructor(name: string, dialect: Dialect) {
    this.name = name
    this.#tree = new TopicTree(dialect)
  }

  get bindingCount(): number {
    return this.#tree.size
  }

  bind(binding: Binding): void {
    this.#tree.add(binding.pattern, binding)
  }

  /** False if that very binding is not held. */
  unbind(binding: Binding): boolean {
    return this.#tree.remove(binding.pattern, binding)
  }

  match(key: string, visit: (binding: Binding) => void): void {
    this.#tree.match(key, visit)
  }
}
