import { open, rename, rm, stat } from 'node:fs/promises'

/** Writes a file whole or not at all, and on the disk before it resolves. One that is there is replaced and keeps its owner; `mode` are the permissions of the new one. */
export async function writeAtomically(
  file: string,
  text: string,
  { mode = 0o644 }: { mode?: number } = {},
): Promise<void> {
  const fresh = `${file}.${process.pid}.new`
  const before = await stat(file).catch(() => null)
  const handle = await open(fresh, 'w', mode)
  try {
    await handle.writeFile(text)
    await handle.chmod(mode)
    // Root changes the file of a gateway that is not root.
    if (before !== null && before.uid !== process.getuid?.()) await handle.chown(before.uid, before.gid)
    await handle.sync()
  } catch (error) {
    await handle.close()
    await rm(fresh, { force: true })
    throw error
  }
  await handle.close()
  await rename(fresh, file)
}
