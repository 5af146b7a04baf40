import { createServer } from 'node:net'
import { parseArgs } from 'node:util'
import { Aedes } from 'aedes'

/* The aedes of a bench: a process of its own with nothing but the broker, on one port of 127.0.0.1. */

const { values } = parseArgs({ options: { port: { type: 'string' } } })
const aedes = await Aedes.createBroker()
createServer(aedes.handle).listen({ port: Number(values.port), host: '127.0.0.1' })
