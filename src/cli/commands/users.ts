import { Command } from 'commander'
import { banList, userList } from '../../api/contract.ts'
import { act, read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printable, printJson, shortCount, shortDuration, table } from '../print.ts'

/** `sluice users` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All users of the users file, with their groups and how many of their clients are connected.')
    .addHelpText('after', examples('sluice users ls --json'))
    .action(listUsers)
  const bans = withGateway(dressCommand(new Command('bans')))
    .description('Addresses that are banned because too many wrong passwords came from them.')
    .addHelpText('after', examples('sluice users bans'))
    .action(listBans)
  const unban = withGateway(dressCommand(new Command('unban')))
    .description('Let an address connect again.')
    .argument('<address>', 'as `sluice users bans` shows it')
    .addHelpText('after', examples('sluice users unban 192.0.2.7', 'sluice users unban 2001:db8:1:2::/64'))
    .action(unbanAddress)
  return dressCommand(new Command('users'))
    .description('Users of a running gateway. They are added and changed with `sluice passwd`.')
    .addHelpText('after', examples('sluice users', 'sluice users bans'))
    .addCommand(list, { isDefault: true })
    .addCommand(bans)
    .addCommand(unban)
}

async function listUsers(options: GatewayOptions): Promise<void> {
  const users = await read(options, '/api/v1/users', userList)
  if (options.json) return printJson(users)
  if (users.length === 0) console.log('there are no users')
  else
    console.log(
      table(users, [
        { title: 'USER', text: row => row.name },
        { title: 'GROUPS', text: row => row.groups.join(', ') || '-' },
        { title: 'CLIENTS', text: row => shortCount(row.clients), align: 'right' },
        { title: 'LAST LOGIN', text: row => row.last_login_at ?? 'not since the start' },
      ]),
    )
}

async function listBans(options: GatewayOptions): Promise<void> {
  const bans = await read(options, '/api/v1/bans', banList)
  if (options.json) return printJson(bans)
  if (bans.length === 0) console.log('no address is banned')
  else
    console.log(
      table(bans, [
        { title: 'ADDRESS', text: row => row.address },
        { title: 'ENDS IN', text: row => shortDuration(row.ends_in_ms) },
      ]),
    )
}

async function unbanAddress(address: string, options: GatewayOptions): Promise<void> {
  await act(options, `/api/v1/bans/${encodeURIComponent(address)}`, 'DELETE')
  if (options.json) printJson({ unbanned: address })
  else console.log(`${printable(address)} may connect again`)
}
