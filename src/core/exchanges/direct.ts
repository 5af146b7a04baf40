import type { Binding } from '../binding.ts'
import type { Headers, Matcher } from '../exchange.ts'

/** Binding key equals routing key (AMQP 0-9-1 section 3.1.3.1). */
export class DirectMatcher implements Matcher {
  readonly #byKey = new Map<string, Binding[]>()
  #size = 0

  get size(): number {
    return this.#size
  }

  bind(binding: Binding): void {
    const held = this.#byKey.get(binding.pattern)
    if (held === undefined) this.#byKey.set(binding.pattern, [binding])
    else held.push(binding)
    this.#size++
  }

  unbind(binding: Binding): boolean {
    const held = this.#byKey.get(binding.pattern)
    const index = held?.indexOf(binding) ?? -1
    if (held === undefined || index < 0) return false
    held.splice(index, 1)
    if (held.length === 0) this.#byKey.delete(binding.pattern)
    this.#size--
    return true
  }

  match(key: string, _headers: Headers, visit: (binding: Binding) => void): void {
    for (const binding of this.#byKey.get(key) ?? []) visit(binding)
  }
}
