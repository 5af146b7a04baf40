import { bytes, packet, text } from './wire.ts'

/** Protocol level: 3.1, 3.1.1, 5.0. */
export type Level = 3 | 4 | 5

/** Properties with their length in front; less than 128 bytes. */
export const listed = (properties: string) => {
  const content = bytes(properties)
  return Buffer.concat([Buffer.from([content.length]), content])
}

/** The packets of one version, with no properties where none are given. Topics and client identifiers begin with `unique`. */
export class Speaker {
  readonly level: Level
  readonly unique: string

  constructor(level: Level, unique: string) {
    this.level = level
    this.unique = unique
  }

  #properties(properties = ''): Buffer {
    return this.level === 5 ? listed(properties) : Buffer.alloc(0)
  }

  connect(name: string, flags = '02', properties = '', ...rest: Buffer[]): Buffer {
    const id = name === '' ? '' : `${this.unique}${name}`
    return this.rawConnect(text(id), flags, properties, ...rest)
  }

  rawConnect(id: Buffer, flags: string, properties: string, ...rest: Buffer[]): Buffer {
    const head = this.level === 3 ? bytes(text('MQIsdp'), '03') : bytes(text('MQTT'), `0${this.level}`)
    return packet(0x10, head, flags, '00 00', this.#properties(properties), id, ...rest)
  }

  /** CONNECT with a will for the topic `will`. */
  mortal(name: string, flags: string, properties = '', willProperties = ''): Buffer {
    return this.connect(name, flags, properties, this.#properties(willProperties), this.topic('will'), text('gone'))
  }

  topic(name: string): Buffer {
    return text(`${this.unique}/${name}`)
  }

  publish(name: string, payload: string, first = 0x30, id = '', properties = ''): Buffer {
    return packet(first, this.topic(name), bytes(id), this.#properties(properties), Buffer.from(payload))
  }

  subscribe(id: string, ...filters: readonly (readonly [string, string])[]): Buffer {
    return packet(
      0x82,
      id,
      this.#properties(),
      ...filters.flatMap(([name, options]) => [this.topic(name), bytes(options)]),
    )
  }

  rawSubscribe(id: string, filter: string, options: string, properties = ''): Buffer {
    return packet(0x82, id, this.#properties(properties), text(filter), bytes(options))
  }

  unsubscribe(id: string, ...names: readonly string[]): Buffer {
    return packet(0xa2, id, this.#properties(), ...names.map(name => this.topic(name)))
  }
}
