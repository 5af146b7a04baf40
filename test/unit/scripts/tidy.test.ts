import { expect, test } from 'vitest'
import { findDeadFiles, findMarkers, findStaleLinks, findUnusedExports } from '../../../scripts/tidy.ts'

const files = (contents: Readonly<Record<string, string>>) => new Map(Object.entries(contents))

test('markers are found with their line', () => {
  const marker = ['TO', 'DO'].join('')
  expect(findMarkers(files({ 'src/a.ts': `ok\n// ${marker}: later\n` }))).toEqual([
    { path: 'src/a.ts', line: 2, message: expect.stringContaining(marker) },
  ])
  expect(findMarkers(files({ 'src/a.ts': 'const mastodon = 1' }))).toEqual([])
})

test('an export nobody imports is found; one that is imported, lazily loaded or named by path is not', () => {
  const found = findUnusedExports(
    files({
      'src/a.ts':
        'export const used = 1\nexport const lazy = 1\nexport function unused() {}\nexport const started = 1\n',
      'src/b.ts': "import { used } from './a.ts'\nconst x = (await import('./a.ts')).lazy\nconst unrelated = used",
      'scripts/c.ts': "spawn('src/a.ts', ['started'])",
    }),
  )
  expect(found.map(({ line, message }) => `${line} ${message.split(' ')[0]}`)).toEqual(['3 unused'])
})

test('a word of the same name in a file that does not import it is no use', () => {
  expect(findUnusedExports(files({ 'src/a.ts': 'export const size = 1', 'src/b.ts': 'const size = 2' }))).toHaveLength(
    1,
  )
})

test('a type is used if its own file has it in a signature', () => {
  const found = findUnusedExports(
    files({
      'src/a.ts': 'export interface Parts { x: number }\nexport type Alone = 1\nexport const f = (p: Parts) => p',
      'src/main.ts': "import { f } from './a.ts'",
    }),
  )
  expect(found.map(({ message }) => message.split(' ')[0])).toEqual(['Alone'])
})

test('a file nothing reaches is dead, also when only another dead one imports it', () => {
  const found = findDeadFiles(
    files({
      'src/main.ts': "import './a.ts'",
      'src/a.ts': '',
      'src/b.ts': "import './c.ts'",
      'src/c.ts': "import './b.ts'",
      'test/unit/a.test.ts': "const probe = 'test/support/probe.ts'",
      'test/support/probe.ts': '',
    }),
  )
  expect(found.map(({ path }) => path)).toEqual(['src/b.ts', 'src/c.ts'])
})

test('links and named files that do not exist are found; addresses and anchors are not looked at', () => {
  const document =
    '[a](b.md) [c](../README.md#d) [e](https://x.example/y) [f](#g) `src/gone.ts` `src/here.ts` `npm run x`'
  const exists = (path: string) => ['README.md', 'src/here.ts'].includes(path)
  expect(findStaleLinks(files({ 'docs/a.md': document }), exists).map(({ message }) => message)).toEqual([
    'docs/b.md does not exist',
    'src/gone.ts does not exist',
  ])
})
