import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'
import { fillQueue } from '../support/fill-queue.ts'

const QUEUE = 'backlog'

/**
 * Fills a queue, opens store and core anew on it, and reads it all: messages per second from the first read of the disk until a consumer in this
 * process, which settles each at once, has had the last one. Rejects when one is missing or out of order.
 */
export async function backlogRead(messages: number): Promise<number> {
  await using directory = await tempDir()
  await fillQueue(directory.path, { name: QUEUE, messages })
  await using core = await CoreUnderTest.open(directory.path)
  const queue = core.topology.queue(QUEUE)
  const { promise: done, resolve, reject } = Promise.withResolvers<void>()
  let received = 0
  const startedMs = performance.now()
  queue.attach({
    credit: Number.POSITIVE_INFINITY,
    deliver: (_bytes, _at, position) => {
      if (position !== received) reject(new Error(`message ${position} came when ${received} was next`))
      queue.settle(position)
      if (++received === messages) resolve()
    },
  })
  await done
  return messages / ((performance.now() - startedMs) / 1000)
}
