import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { Command } from 'commander'
import { topicName } from '../../model/names.ts'
import { Failure } from '../failure.ts'
import { MqttClient } from '../mqtt-client.ts'
import { type MqttOptions, readAddress, withMqtt } from '../mqtt-options.ts'
import { dressCommand, examples, wholeNumber } from '../options.ts'
import { printJson } from '../print.ts'

interface PubOptions extends MqttOptions {
  readonly topic: string
  readonly message?: string
  readonly fromFile?: string
  readonly lines?: true
  readonly null?: true
  readonly retain?: true
  readonly repeat: number
  readonly rate: number
  readonly json?: true
}

/** `sluice pub` */
export function command(): Command {
  const pub = withMqtt(dressCommand(new Command('pub')))
    .description('Publish over MQTT and wait until everything is acknowledged.')
    .requiredOption('-t, --topic <topic>', 'topic')
    .option('-m, --message <text>', 'the message')
    .option('-f, --from-file <file>', 'the content of a file as one message')
    .option('-l, --lines', 'each line of standard input as a message')
    .option('-n, --null', 'an empty message')
    .option('-r, --retain', 'retain it')
    .option('--repeat <times>', 'send the message so many times', wholeNumber({ min: 1, max: 1_000_000_000 }), 1)
    .option(
      '--rate <per-second>',
      'messages per second at most; 0: as fast as it goes',
      wholeNumber({ min: 0, max: 1_000_000 }),
      0,
    )
    .option('--json', 'print what was done as JSON')
    .addHelpText(
      'after',
      examples(
        'sluice pub -t sensors/7/temperature -m 21.5 -q 1',
        'seq 1000 | sluice pub -t test -l -q 1 --rate 100',
        'sluice pub -t test -m hello --cafile ca.pem -h gateway.example',
      ),
    )
  return pub.action(async (options: PubOptions) => {
    const sources = [options.message, options.fromFile, options.lines, options.null].filter(
      source => source !== undefined,
    )
    if (sources.length !== 1) pub.error('error: exactly one of -m, -f, -l, -n says what to send', { exitCode: 2 })
    await publish(options)
  })
}

async function publish(options: PubOptions): Promise<void> {
  const topic = topicName(options.topic)
  const { qos, rate, retain = false } = options
  // Read before connecting: a file that is not there costs the broker nothing.
  const single = options.lines ? null : await readPayload(options)
  const client = await MqttClient.connect(readAddress(options, 'pub'), () => 'taken')
  let published = 0
  let failure: unknown = null
  let pending: Promise<void> = Promise.resolve()
  const startedMs = performance.now()
  const send = async (payload: Buffer): Promise<void> => {
    if (rate > 0) await delay(Math.max(0, startedMs + (published * 1000) / rate - performance.now()))
    await client.room()
    if (failure !== null) throw failure
    published++
    const done = client.publish({ topic, payload, qos, retain })
    // Not awaited here, so that a window of messages is on its way; seen at the next message or at the end.
    const noted = done.catch((error: unknown) => {
      failure ??= error
    })
    if (qos === 0) await noted
    else pending = Promise.all([pending, noted]).then(() => undefined)
  }
  try {
    if (single === null) {
      for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY }))
        await send(Buffer.from(line))
    } else {
      for (let turn = 0; turn < options.repeat; turn++) await send(single)
    }
    await pending
    if (failure !== null) throw failure
  } finally {
    // An open connection would keep the command from ending.
    await client.end()
  }
  if (options.json) printJson({ topic, qos, published })
}

async function readPayload({ message, fromFile }: PubOptions): Promise<Buffer> {
  if (fromFile === undefined) return Buffer.from(message ?? '')
  try {
    return await readFile(fromFile)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Failure(`The message can't be read from ${fromFile}: ${reason}.`, { cause })
  }
}
