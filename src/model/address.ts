/** Whether an address, or the name `localhost`, is reachable from this machine only. An IPv4 address may come in the form IPv6 sockets give it. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^(?:::ffff:)?127(?:\.\d{1,3}){3}$/i.test(address)
}
