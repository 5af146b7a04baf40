import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { gatewayId } from '../../../src/config/gateway-id.ts'
import { tempDir } from '../../support/temp-dir.ts'

test('a configured id is taken and nothing is written', async () => {
  expect(await gatewayId({ configured: 'gw-017', dataDir: '/nonexistent' })).toBe('gw-017')
})

test('the first start makes an id of host name and 6 random characters, later ones keep it', async () => {
  await using folder = await tempDir()
  const dataDir = join(folder.path, 'deep/data')
  const first = await gatewayId({ configured: null, dataDir })
  expect(first).toMatch(/^[A-Za-z0-9][A-Za-z0-9._-]*-[a-z0-9]{6}$/)
  expect(await gatewayId({ configured: null, dataDir })).toBe(first)
  expect(await readFile(join(dataDir, 'gateway-id'), 'utf8')).toBe(`${first}\n`)
})

test('two fresh machines of the same name differ', async () => {
  await using a = await tempDir()
  await using b = await tempDir()
  expect(await gatewayId({ configured: null, dataDir: a.path })).not.toBe(
    await gatewayId({ configured: null, dataDir: b.path }),
  )
})

test.each(['', '\u0000\u0000\u0000', 'a/b'])(
  'a file with %j in it is replaced: a power cut must not stop the gateway',
  async content => {
    await using folder = await tempDir()
    await writeFile(join(folder.path, 'gateway-id'), content)
    const id = await gatewayId({ configured: null, dataDir: folder.path })
    expect(id).toMatch(/-[a-z0-9]{6}$/)
    expect(await gatewayId({ configured: null, dataDir: folder.path })).toBe(id)
  },
)

test('a place where no directory can be made is refused, and not tried for ever', async () => {
  await expect(gatewayId({ configured: null, dataDir: '/proc/sluice/deep' })).rejects.toMatchObject({
    code: 'STORE_UNWRITABLE',
  })
})

test('a data directory that is no directory is refused with what to do', async () => {
  await using folder = await tempDir()
  const file = join(folder.path, 'file')
  await writeFile(file, '')
  await expect(gatewayId({ configured: null, dataDir: file })).rejects.toMatchObject({
    code: 'STORE_UNWRITABLE',
    message: expect.stringMatching(/Give data_dir a directory this user may write to/),
  })
})
