import type { Binding } from '../binding.ts'
import type { Headers, Matcher } from '../exchange.ts'

/** Every binding, whatever the key (AMQP 0-9-1 section 3.1.3.2). */
export class FanoutMatcher implements Matcher {
  readonly #bindings = new Set<Binding>()

  get size(): number {
    return this.#bindings.size
  }

  bind(binding: Binding): void {
    this.#bindings.add(binding)
  }

  unbind(binding: Binding): boolean {
    return this.#bindings.delete(binding)
  }

  match(_key: string, _headers: Headers, visit: (binding: Binding) => void): void {
    for (const binding of this.#bindings) visit(binding)
  }
}
