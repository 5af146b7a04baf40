import { BrokerError } from '../model/error.ts'
import type { Binding } from './binding.ts'
import { DEFAULT_EXCHANGE } from './exchange.ts'
import type { Keeper } from './keeper.ts'
import type { Origin } from './queue-definition.ts'
import type { RoutingTable } from './routing-table.ts'

/** The queues, or the streams, there are: by name, with their definitions, and bound to the default exchange by that name. */
export class Registry<Kept extends Keeper, Definition extends { readonly name: string; readonly origin: Origin }> {
  readonly #kind: 'queue' | 'stream'
  readonly #table: RoutingTable
  readonly #kept = new Map<string, Kept>()
  readonly #definitions = new Map<string, Definition>()
  readonly #declared = new Set<string>()
  /** The binding that lets the default exchange find each. */
  readonly #byName = new Map<string, Binding>()

  constructor(kind: 'queue' | 'stream', table: RoutingTable) {
    this.#kind = kind
    this.#table = table
  }

  add(kept: Kept, definition: Definition): void {
    const { name } = definition
    this.#definitions.set(name, definition)
    this.#byName.set(name, { pattern: name, destination: { live: null, queue: kept }, maxQos: 2, note: 0 })
    this.show(kept)
  }

  /** @throws BrokerError DECLARATION_MISMATCH: one of the other kind has this name. */
  refuseTaken(name: string): never {
    const other = this.#kind === 'queue' ? 'stream' : 'queue'
    throw new BrokerError(
      'DECLARATION_MISMATCH',
      `there is a ${other} ${name}, perhaps of an earlier configuration; delete it, or give the ${this.#kind} another name`,
      { facts: { [this.#kind]: name } },
    )
  }

  /** Somebody has named it since the start: it is no orphan. */
  noteDeclared(name: string): void {
    this.#declared.add(name)
  }

  redefine(definition: Definition): void {
    this.#definitions.set(definition.name, definition)
  }

  /** Those in use and orphans. */
  all(): Iterable<Kept> {
    return this.#kept.values()
  }

  get size(): number {
    return this.#kept.size
  }

  find(name: string): Kept | undefined {
    return this.#kept.get(name)
  }

  definitionOf(name: string): Definition | undefined {
    return this.#definitions.get(name)
  }

  definitions(): Iterable<Definition> {
    return this.#definitions.values()
  }

  originOf(name: string): Origin {
    return this.#definitions.get(name)?.origin ?? 'config'
  }

  /** Left over from an earlier configuration: kept until it is deleted, or declared again. */
  isOrphan(name: string): boolean {
    return this.#definitions.get(name)?.origin === 'config' && !this.#declared.has(name)
  }

  /** @throws BrokerError QUEUE_IN_USE if the configuration declares it or it has users, called so in the plural. */
  checkDeletable(name: string, users: 'consumers' | 'readers', count: number): void {
    const kind = this.#kind
    if (this.originOf(name) === 'config' && !this.isOrphan(name)) {
      throw new BrokerError('QUEUE_IN_USE', `${kind} ${name} comes from the configuration; take it out there`, {
        facts: { [kind]: name },
      })
    }
    if (count > 0) {
      throw new BrokerError('QUEUE_IN_USE', `${kind} ${name} has ${count} ${users}; end them first`, {
        facts: { [kind]: name, [users]: count },
      })
    }
  }

  /** From here on nobody finds it, so nobody can publish to it or take from it; until `show` or `forget`. Returns its definition. */
  hide(name: string): Definition {
    const definition = this.#definitions.get(name)
    if (definition === undefined) throw new TypeError(`${this.#kind} ${name} has no definition`)
    this.#table.unbind(DEFAULT_EXCHANGE, this.#bindingOf(name))
    this.#kept.delete(name)
    return definition
  }

  show(kept: Kept): void {
    this.#kept.set(kept.name, kept)
    this.#table.bind(DEFAULT_EXCHANGE, this.#bindingOf(kept.name))
  }

  /** It is gone. */
  forget(name: string): void {
    this.#byName.delete(name)
    this.#definitions.delete(name)
    this.#declared.delete(name)
  }

  #bindingOf(name: string): Binding {
    const byName = this.#byName.get(name)
    if (byName === undefined) throw new TypeError(`${this.#kind} ${name} is not bound by its name`)
    return byName
  }
}
