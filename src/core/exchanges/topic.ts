import type { Binding } from '../binding.ts'
import type { Headers, Matcher } from '../exchange.ts'
import { type Dialect, TopicTree } from '../topic-tree.ts'

/** Wildcards by word (AMQP 0-9-1 section 3.1.3.3; MQTT 5.0 section 4.7). */
export class TopicMatcher implements Matcher {
  readonly #tree: TopicTree<Binding>

  constructor(dialect: Dialect) {
    this.#tree = new TopicTree(dialect)
  }

  get size(): number {
    return this.#tree.size
  }

  bind(binding: Binding): void {
    this.#tree.add(binding.pattern, binding)
  }

  unbind(binding: Binding): boolean {
    return this.#tree.remove(binding.pattern, binding)
  }

  match(key: string, _headers: Headers, visit: (binding: Binding) => void): void {
    this.#tree.match(key, visit)
  }
}
