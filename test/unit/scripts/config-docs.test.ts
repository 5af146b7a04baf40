import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { renderJsonSchema, renderMarkdown } from '../../../scripts/config-docs.ts'
import { configSchema } from '../../../src/config/schema.ts'
import { type OptionNode, readTree } from '../../../src/config/tree.ts'

const DOCS = join(import.meta.dirname, '../../../docs')

function paths(node: OptionNode, path = ''): string[] {
  if (node.kind === 'group')
    return [...node.keys].flatMap(([key, child]) => paths(child, path === '' ? key : `${path}.${key}`))
  return node.kind === 'named' ? paths(node.each, `${path}.<name>`) : [path]
}

test('both documents are what the schema says: run `npm run docs`', () => {
  expect(readFileSync(join(DOCS, 'configuration.md'), 'utf8')).toBe(renderMarkdown())
  expect(readFileSync(join(DOCS, 'config.schema.json'), 'utf8')).toBe(renderJsonSchema())
})

test('every option has its line, with default or `required`, what is accepted, and what it does', () => {
  const lines = renderMarkdown().split('\n')
  const options = paths(readTree(configSchema))
  expect(options.length).toBeGreaterThan(40)
  for (const option of options) {
    const cells = lines.find(line => line.startsWith(`| \`${option}\` |`))?.split(' | ')
    expect(cells, option).toHaveLength(4)
    for (const cell of cells ?? []) expect(cell.trim().length, option).toBeGreaterThan(1)
    expect(cells?.join(), option).not.toMatch(/undefined|null/)
  }
})

test('editors refuse unknown keys and know required ones', () => {
  const schema = JSON.parse(renderJsonSchema())
  expect(schema.additionalProperties).toBe(false)
  expect(schema.properties.routes.additionalProperties.required).toEqual(['from', 'upstream', 'exchange'])
  expect(schema.properties.http.properties.port.default).toBe(15_680)
})
