/*
 * Writes docs/configuration.md and docs/config.schema.json from src/config/schema.ts.
 *
 *   node scripts/config-docs.ts            write both
 *   node scripts/config-docs.ts --check    fail if they differ from what would be written
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod/mini'
import { abouts } from '../src/config/option.ts'
import { configSchema } from '../src/config/schema.ts'
import { type OptionNode, readTree } from '../src/config/tree.ts'

const INTRODUCTION = `<!-- Written by scripts/config-docs.ts from src/config/schema.ts: change that, then run \`npm run docs\`. -->
# Configuration

One YAML file, read by \`sluice run --config FILE\`; \`./sluice.yaml\` is taken if there is one, and without any file every option has
the default below. \`sluice check FILE\` tells every error with line, key and what is accepted. A key that is not listed here is an error.

* **Durations** are a number with \`ms\`, \`s\`, \`m\`, \`h\` or \`d\`: \`250ms\`, \`30s\`, \`7d\`. **Sizes** are a number with \`B\`, \`KiB\`, \`MiB\`, \`GiB\` or \`TiB\`: \`64MiB\`.
* **\`\${NAME}\`** in a text takes the environment variable; it must exist. \`$\${NAME}\` stands for the plain text.
* **\`file:PATH\`** as the value of an option that holds a secret (an upstream's URL) takes the first line of that file. A relative path starts at the
  folder of the configuration file. \`GET /api/v1/config\` shows passwords as \`***\`.
* **Overrides**: \`SLUICE_HTTP__PORT=8080\` in the environment, or \`--set http.port=8080\`, which wins. Two underscores stand for a dot. A list takes its single item.
  An environment variable that begins with \`SLUICE_\` and is no option is an error; \`SLUICE_URL\` and \`SLUICE_TOKEN\` belong to the command line.
* **SIGHUP** reads the file again (\`systemctl reload\`, \`kill -HUP\`). \`auth.acl\`, \`auth.allow_anonymous\`, \`log.level\` and the limits that count (\`clients\`, \`sessions\`, \`session_state\`, \`subscriptions_per_session\`, \`receive_max\`,
  \`inflight\`, \`topic_aliases\`, \`topic\`, \`topic_levels\`, \`keep_alive_max\`, \`session_expiry_max\`, \`connect_timeout\`, \`refuse_disconnect_after\`) are in force at once, no connection ends: \`allow_anonymous\` and limits are for
  clients that come from then on. One line of the log names what takes a restart (\`restart to apply: store.disk\`). A file with mistakes changes nothing, and the log says why.
* Editors complete and check the file with [config.schema.json](config.schema.json): \`# yaml-language-server: $schema=…/config.schema.json\`.
`

/** docs/configuration.md */
export function renderMarkdown(): string {
  const root = readTree(configSchema)
  if (root.kind !== 'group') throw new TypeError('the configuration is not a section')
  const sections: string[] = []
  const rows: string[] = []
  for (const [key, node] of root.keys) {
    if (node.kind === 'value') rows.push(...renderRows(key, node))
    else sections.push(`## ${key}\n\n${node.about?.help ?? ''}\n\n${renderTable(renderRows(key, node))}`)
  }
  return `${[INTRODUCTION.trimEnd(), `## Top level\n\n${renderTable(rows)}`, ...sections].join('\n\n')}\n`
}

/** docs/config.schema.json */
export function renderJsonSchema(): string {
  const schema = z.toJSONSchema(configSchema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      const about = abouts.get(zodSchema)
      if (about === undefined) return
      jsonSchema.description = about.type === 'section' ? about.help : `${about.help} Accepted is ${about.accepts}.`
    },
  })
  return `${JSON.stringify({ title: 'sluice.yaml', ...schema }, null, 2)}\n`
}

function renderTable(rows: readonly string[]): string {
  return ['| key | default | accepted | what it does |', '|---|---|---|---|', ...rows].join('\n')
}

function renderRows(path: string, node: OptionNode): string[] {
  switch (node.kind) {
    case 'group': {
      const rows = [...node.keys].flatMap(([key, child]) => renderRows(`${path}.${key}`, child))
      if (!node.isOptional || node.about === null) return rows
      return [renderRow(path, 'not there', node.about.accepts, node.about.help), ...rows]
    }
    case 'named':
      return renderRows(`${path}.<name>`, node.each)
    case 'sections':
      return [
        renderRow(path, node.about.absent ?? '**required**', node.about.accepts, node.about.help),
        ...renderRows(`${path}[]`, node.each),
      ]
    case 'list':
      return [renderRow(path, node.about.absent ?? '**required**', node.about.accepts, node.about.help)]
    case 'value': {
      const { about, fallback, isRequired } = node
      const shown = isRequired ? '**required**' : (about.absent ?? `\`${fallback}\``)
      return [renderRow(path, shown, about.accepts, about.help)]
    }
    default:
      return node satisfies never
  }
}

function renderRow(path: string, fallback: string, accepts: string, help: string): string {
  return `| \`${path}\` | ${fallback} | ${cell(accepts)} | ${cell(help)} |`
}

const cell = (text: string): string => text.replaceAll('|', '\\|')

if (import.meta.main) {
  const folder = join(import.meta.dirname, '../docs')
  const documents = [
    ['configuration.md', renderMarkdown()],
    ['config.schema.json', renderJsonSchema()],
  ] as const
  const isCheck = process.argv.includes('--check')
  for (const [name, text] of documents) {
    const path = join(folder, name)
    if (!isCheck) {
      writeFileSync(path, text)
    } else if (readFileSync(path, 'utf8') !== text) {
      console.error(`docs/${name} is not what src/config/schema.ts says: run \`npm run docs\` and commit it`)
      process.exitCode = 1
    }
  }
  if (process.exitCode === undefined) console.log(`config docs: ${isCheck ? 'up to date' : 'written'}`)
}
