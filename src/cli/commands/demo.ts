import { Command, InvalidArgumentError } from 'commander'
import { Failure } from '../failure.ts'
import { dressCommand, examples } from '../options.ts'

interface Options {
  readonly devices: number
  readonly seconds: number
  readonly outage: boolean
  readonly seed: number
}

/** `sluice demo` */
export function command(): Command {
  return dressCommand(new Command('demo'))
    .description(
      'The whole story on this machine: gateway, RabbitMQ and a fleet of simulated sensors, with --outage an upstream that is killed in the ' +
        'middle and comes back. Shows it live and balances the books at the end; exit status 0 only if nothing was lost. Needs RabbitMQ ' +
        '(Debian: rabbitmq-server), which is installed if the user may.',
    )
    .option('--devices <n>', 'simulated sensors, 2 to 500', wholeNumber(2, 500), 50)
    .option('--seconds <n>', 'how long the sensors send, 5 to 3600', wholeNumber(5, 3600), 45)
    .option('--outage', 'kill the upstream broker in the middle and start it again', false)
    .option('--seed <n>', 'same seed, same readings', wholeNumber(0, 2 ** 31), 7)
    .addHelpText('after', examples('sluice demo --outage', 'sluice demo --devices 200 --seconds 120 --outage'))
    .action(demo)
}

async function demo({ devices, seconds, outage, seed }: Options): Promise<void> {
  const { tellStory } = await import('../demo/story.ts')
  const { published, unacknowledgeable, acknowledged, upstream, duplicates, lost, report } = await tellStory(
    { devices, seconds, hasOutage: outage, seed },
    process.stdout,
  )
  console.log(`${unacknowledgeable} of the published were QoS 0, which MQTT does not acknowledge.`)
  console.log(
    `published ${published}, acknowledged ${acknowledged}, upstream ${upstream}, duplicates ${duplicates}, lost ${lost}`,
  )
  if (report.isFaultless) return
  const { unknown, unmarkedDuplicates, orderViolations, malformed } = report
  throw new Failure(
    `the balance does not close: lost ${lost}, unknown ${unknown}, duplicates without a mark ${unmarkedDuplicates.count}, ` +
      `out of order ${orderViolations.live.count + orderViolations.replay.count}, malformed ${malformed.count}; ` +
      'this is a defect of Sluice, please report it with the seed',
  )
}

function wholeNumber(min: number, max: number): (text: string) => number {
  return text => {
    const value = Number(text)
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`)
    }
    return value
  }
}
