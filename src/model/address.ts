/** Whether an address, or the name `localhost`, is reachable from this machine only. An IPv4 address may come in the form IPv6 sockets give it. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^(?:::ffff:)?127(?:\.\d{1,3}){3}$/i.test(address)
}

/** What stands for all addresses that one network usually gives to one site: an IPv4 address, the first 64 bits of an IPv6 address; a link-local one as it is. */
export function addressGroup(address: string): string {
  const mapped = /^::ffff:(\d.*)$/i.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (!address.includes(':') || /^fe[89ab]/i.test(address)) return address
  const [before = '', after] = address.split('::')
  const left = before === '' ? [] : before.split(':')
  const right = after === undefined || after === '' ? [] : after.split(':')
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => '0')
  return `${[...left, ...(after === undefined ? [] : zeros), ...right].slice(0, 4).join(':')}::/64`
}
