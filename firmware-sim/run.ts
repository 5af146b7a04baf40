import { once } from 'node:events'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { type FleetPlan, type FleetStats, startFleet, withDevices } from './fleet.ts'

const USAGE = `Simulates a fleet of devices against an MQTT broker until Ctrl-C or the end of --seconds.

  run.ts FLEET [--broker mqtt://127.0.0.1:1883] [--seed 1] [--speed 1] [--devices N] [--seconds N] [--ledger]

  FLEET       a file that exports a plan as \`fleet\`, such as fleets/factory.ts
  --speed     virtual seconds per real one
  --seconds   real time
  --ledger    print each device's ledger as a line of JSON at the end`

class UsageError extends Error {}

async function main(): Promise<void> {
  const { values, positionals } = parseArguments()
  if (values.help) {
    process.stdout.write(`${USAGE}\n`)
    return
  }
  const [file] = positionals
  if (file === undefined) throw new UsageError('which fleet?')
  const plan = await loadPlan(file)
  const devices = numberOf('devices', values.devices)
  const fleet = startFleet(devices === undefined ? plan : withDevices(plan, devices), {
    broker: values.broker,
    seed: numberOf('seed', values.seed) ?? 1,
    speed: numberOf('speed', values.speed) ?? 1,
    onProgress: stats => process.stderr.write(`${describe(stats)}\n`),
  })
  const ends = [once(process, 'SIGINT'), once(process, 'SIGTERM')]
  const seconds = numberOf('seconds', values.seconds)
  if (seconds !== undefined) ends.push(once(AbortSignal.timeout(seconds * 1000), 'abort'))
  // The timer of AbortSignal.timeout doesn't keep the process alive; the devices' timers do.
  await Promise.race(ends)
  const ledgers = await fleet.stop()
  process.stdout.write(`${describe(fleet.stats())}\n`)
  if (values.ledger) for (const ledger of ledgers) process.stdout.write(`${JSON.stringify(ledger)}\n`)
  // An end that did not come keeps its signal handler; nothing else is open.
  process.exit()
}

function parseArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        broker: { type: 'string', default: 'mqtt://127.0.0.1:1883' },
        seed: { type: 'string' },
        speed: { type: 'string' },
        devices: { type: 'string' },
        seconds: { type: 'string' },
        ledger: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !(value >= 0)) throw new UsageError(`--${option} must be a number, not ${text}`)
  return value
}

async function loadPlan(file: string): Promise<FleetPlan> {
  const module: { fleet?: FleetPlan } = await import(pathToFileURL(resolve(file)).href)
  if (module.fleet === undefined) throw new UsageError(`${file} exports no \`fleet\``)
  return module.fleet
}

function describe(stats: FleetStats): string {
  return [
    `online ${stats.online}/${stats.devices}`,
    `published ${stats.published} (QoS 0: ${stats.publishedAtQos0})`,
    `acknowledged ${stats.acknowledged}`,
    `unacknowledged ${stats.unacknowledged}`,
    `stored ${stats.stored}`,
    `discarded ${stats.discarded}`,
    `overwritten ${stats.overwritten}`,
    `reconnects ${stats.reconnects}`,
  ].join(', ')
}

await main().catch(error => {
  const isUsage = error instanceof UsageError
  process.stderr.write(`${error instanceof Error ? error.message : error}\n${isUsage ? `${USAGE}\n` : ''}`)
  process.exit(isUsage ? 2 : 1)
})
