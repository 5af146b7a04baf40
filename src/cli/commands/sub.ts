import { Command, Option } from 'commander'
import { Failure } from '../failure.ts'
import { type IncomingMessage, MqttClient } from '../mqtt-client.ts'
import { type MqttOptions, readAddress, withMqtt } from '../mqtt-options.ts'
import { collect, dressCommand, examples, wholeNumber } from '../options.ts'

interface SubOptions extends MqttOptions {
  readonly topic: readonly string[]
  readonly count?: number
  readonly wait?: number
  readonly nack?: 'requeue' | 'fail'
  readonly verbose?: true
  readonly json?: true
}

/** Reason codes of PUBACK and PUBREC by which a consumer of `$queue/NAME` refuses a message (docs/mqtt.md). */
const NACK = { requeue: 0x83, fail: 0x80 } as const

/** `sluice sub` */
export function command(): Command {
  const sub = withMqtt(dressCommand(new Command('sub')))
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
    .addOption(
      new Option(
        '--nack <how>',
        'with $queue/NAME, -V 5 and -q 1 or 2: refuse each message; fail counts an attempt',
      ).choices(Object.keys(NACK)),
    )
    .option('-v, --verbose', 'print the topic before the payload')
    .option('--json', 'print each message as one line of JSON; payload in base64 if it is not text')
    .addHelpText(
      'after',
      examples(
        "sluice sub -t 'sensors/#' -v",
        'sluice sub -t alarms -q 1 -C 1 -W 10 --json',
        "sluice sub -t '$queue/jobs' -q 1",
      ),
    )
  return sub.action(async (options: SubOptions) => {
    if (options.nack !== undefined && (options.protocol !== 5 || options.qos === 0)) {
      sub.error('error: --nack needs -V 5 and -q 1 or 2; earlier versions and QoS 0 have no word for a refusal', {
        exitCode: 2,
      })
    }
    await subscribe(options)
  })
}

async function subscribe(options: SubOptions): Promise<void> {
  const { wait, count, nack } = options
  let received = 0
  let finish: (outcome: Failure | null) => void = () => undefined
  const finished = new Promise<Failure | null>(resolve => {
    finish = resolve
  })
  const address = {
    ...readAddress(options, 'sub'),
    ...(count !== undefined && { receiveMaximum: Math.min(count, 65_535) }),
  }
  const client = await MqttClient.connect(address, message => {
    // What isn't printed isn't acknowledged: it may be somebody's job.
    if (count !== undefined && received >= count) return 'unanswered'
    received++
    process.stdout.write(formatMessage(message, options))
    if (received === count) finish(null)
    return nack === undefined ? 'taken' : NACK[nack]
  })
  process.once('SIGINT', () => finish(null))
  process.once('SIGTERM', () => finish(null))
  void client.closed.then(finish)
  let timer: NodeJS.Timeout | undefined
  try {
    await client.subscribe(options.topic, options.qos)
    if (wait !== undefined) {
      timer = setTimeout(() => {
        finish(count === undefined ? null : new Failure(`${received} of ${count} messages came within ${wait} s.`))
      }, wait * 1000)
    }
    const failure = await finished
    if (failure !== null) throw failure
  } finally {
    clearTimeout(timer)
    await client.end()
  }
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
