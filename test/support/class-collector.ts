import { type Classes, NOTE_LIVE } from '../../src/core/consumer.ts'
import type { Queue } from '../../src/core/queue.ts'
import { Collector } from './collector.ts'

/** Takes live messages and backlog as a link does, as many as the test says. */
export class ClassCollector extends Collector implements Classes {
  readonly liveMs = 5000
  readonly isStrict: boolean
  liveCredit = Number.POSITIVE_INFINITY
  backlogCredit = Number.POSITIVE_INFINITY

  /** It is the queue's, and the link forwards. */
  static on(queue: Queue, { isStrict = false, backlogCredit = Number.POSITIVE_INFINITY } = {}): ClassCollector {
    const collector = new ClassCollector(queue, isStrict)
    collector.backlogCredit = backlogCredit
    queue.classes = collector
    queue.attach(collector)
    queue.setForwarding(true)
    return collector
  }

  private constructor(queue: Queue, isStrict: boolean) {
    super(queue)
    this.isStrict = isStrict
  }

  override deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void {
    super.deliver(bytes, at, position, note, attempts)
    if ((note & NOTE_LIVE) === 0) this.backlogCredit--
    else this.liveCredit--
  }

  /** Payloads in order of delivery, by class. */
  get live(): string[] {
    return this.deliveries.filter(({ note }) => (note & NOTE_LIVE) !== 0).map(({ payload }) => payload)
  }

  get backlog(): string[] {
    return this.deliveries.filter(({ note }) => (note & NOTE_LIVE) === 0).map(({ payload }) => payload)
  }
}
