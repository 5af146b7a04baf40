import { isExecutable, readBuild } from './assets.ts'

/** What `sluice --version` prints: version, commit, runtime, LevelDB. */
export function versionText(): string {
  const { version, commit, classicLevel, levelDb } = readBuild()
  const form = isExecutable ? 'executable' : 'sources'
  return [
    `sluice ${version}`,
    `commit ${commit}`,
    `runtime Node.js ${process.versions.node} (V8 ${process.versions.v8}), ${process.platform}-${process.arch}, ${form}`,
    `LevelDB ${levelDb} (classic-level ${classicLevel})`,
  ].join('\n')
}
