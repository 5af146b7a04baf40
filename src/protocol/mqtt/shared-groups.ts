import type { Queue } from '../../core/queue.ts'
import type { Router } from '../../core/router.ts'
import { type KeptSessions, sessionQueueLimits } from '../../core/sessions.ts'
import type { Topology } from '../../core/topology.ts'
import { BrokerError } from '../../model/error.ts'
import type { MqttCounters } from './counters.ts'
import type { MqttLimits } from './limits.ts'
import { type Membership, SharedGroup, type SharedMember } from './shared-group.ts'
import type { SharedFilter } from './topic.ts'

/**
 * The groups that share a subscription, by group and filter: there as long as a session holds it. A group costs a queue, and any client can name
 * one: there are at most as many as `limits.queues` permits queues.
 */
export class SharedGroups {
  readonly #router: Router
  readonly #topology: Topology
  readonly #kept: KeptSessions
  readonly #limits: MqttLimits
  readonly #counters: MqttCounters
  readonly #groups = new Map<string, SharedGroup>()

  constructor({
    router,
    topology,
    kept,
    limits,
    counters,
  }: {
    router: Router
    topology: Topology
    kept: KeptSessions
    limits: MqttLimits
    counters: MqttCounters
  }) {
    this.#router = router
    this.#topology = topology
    this.#kept = kept
    this.#limits = limits
    this.#counters = counters
  }

  get count(): number {
    return this.#groups.size
  }

  *queues(): Iterable<Queue> {
    for (const { queue } of this.#groups.values()) yield queue
  }

  /**
   * Makes a session a member of the group, which is made with its first one, or notes the options it has now.
   * @throws BrokerError LIMIT_REACHED, QUEUE_IN_USE
   */
  join(shared: SharedFilter, membership: Membership): SharedGroup {
    const group = this.#groups.get(shared.name) ?? this.#make(shared)
    group.join(membership)
    return group
  }

  /** The session has no part in it any more. */
  leave(name: string, member: SharedMember): void {
    this.#groups.get(name)?.leave(member)
  }

  /** All sessions of before this start are back: groups that nobody holds any more go. */
  restored(): void {
    for (const name of this.#kept.groupNames()) if (!this.#groups.has(name)) this.#kept.endGroup(name)
  }

  #end(name: string, queue: Queue): void {
    this.#groups.delete(name)
    if (!this.#kept.endGroup(name)) queue.delete('session_ended')
  }

  #make({ name, filter }: SharedFilter): SharedGroup {
    const { declared, sessionQueue } = this.#limits
    if (this.#groups.size >= declared.queues) {
      throw new BrokerError(
        'LIMIT_REACHED',
        `there are ${declared.queues} groups of shared subscriptions already, as many as limits.queues permits`,
        { facts: { limit: declared.queues } },
      )
    }
    const group = new SharedGroup({
      name,
      filter,
      queue: this.#kept.groupQueue(name) ?? this.#topology.memoryQueue(name, sessionQueueLimits(sessionQueue)),
      router: this.#router,
      counters: this.#counters,
      onKept: queue => this.#kept.keepGroup(name, queue),
      onEnd: queue => this.#end(name, queue),
    })
    this.#groups.set(name, group)
    return group
  }
}
