import { Command } from 'commander'
import { Failure } from '../failure.ts'
import { type IncomingMessage, MqttClient } from '../mqtt-client.ts'
import { type MqttOptions, readAddress, withMqtt } from '../mqtt-options.ts'
import { collect, dressCommand, examples, wholeNumber } from '../options.ts'

interface SubOptions extends MqttOptions {
  readonly topic: readonly string[]
  readonly count?: number
  readonly wait?: number
  readonly verbose?: true
  readonly json?: true
}

/** `sluice sub` */
export function command(): Command {
  return withMqtt(dressCommand(new Command('sub')))
    .description('Subscribe over MQTT and print what comes, a line per message, until interrupted.')
    .requiredOption(
      '-t, --topic <filter>',
      'topic filter; may be repeated',
      (value: string, before: readonly string[] | undefined) => collect(value, before ?? []),
    )
    .option('-C, --count <messages>', 'end after so many messages', wholeNumber({ min: 1, max: 1_000_000_000 }))
    .option(
      '-W, --wait <seconds>',
      'end after so many seconds; fails if --count has not been reached',
      wholeNumber({ min: 1, max: 1_000_000 }),
    )
    .option('-v, --verbose', 'print the topic before the payload')
    .option('--json', 'print each message as one line of JSON; payload in base64 if it is not text')
    .addHelpText('after', examples("sluice sub -t 'sensors/#' -v", 'sluice sub -t alarms -q 1 -C 1 -W 10 --json'))
    .action(subscribe)
}

async function subscribe(options: SubOptions): Promise<void> {
  let received = 0
  let finish: (outcome: Failure | null) => void = () => undefined
  const finished = new Promise<Failure | null>(resolve => {
    finish = resolve
  })
  const client = await MqttClient.connect(readAddress(options, 'sub'), message => {
    if (options.count !== undefined && received >= options.count) return
    received++
    process.stdout.write(formatMessage(message, options))
    if (received === options.count) finish(null)
  })
  process.once('SIGINT', () => finish(null))
  process.once('SIGTERM', () => finish(null))
  void client.closed.then(finish)
  await client.subscribe(options.topic, options.qos)
  const { wait, count } = options
  const timer =
    wait === undefined
      ? null
      : setTimeout(() => {
          finish(count === undefined ? null : new Failure(`${received} of ${count} messages came within ${wait} s.`))
        }, wait * 1000)
  const failure = await finished
  if (timer !== null) clearTimeout(timer)
  await client.end()
  if (failure !== null) throw failure
}

function formatMessage(
  { topic, payload, qos, retain }: IncomingMessage,
  { verbose, json }: SubOptions,
): Buffer | string {
  if (json) {
    const text = payload.toString()
    const isText = Buffer.from(text).equals(payload)
    const encoding = isText ? 'utf8' : 'base64'
    return `${JSON.stringify({ topic, payload: payload.toString(encoding), encoding, qos, retain })}\n`
  }
  const end = Buffer.from('\n')
  return verbose ? Buffer.concat([Buffer.from(`${topic} `), payload, end]) : Buffer.concat([payload, end])
}
