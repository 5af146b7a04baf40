import type { Hono } from 'hono'
import { DEFINITIONS_PATH } from '../../model/definitions-document.ts'
import type { Gateway } from '../gateway.ts'
import { readBody, readFlag } from '../request.ts'

/** All that is declared, out and in. 200 comes after what was missing is durable; a refusal changes nothing. */
export function mountDefinitions(app: Hono, { definitions: model }: Gateway): void {
  app.get(DEFINITIONS_PATH, c => c.json(model.export()))
  app.post(DEFINITIONS_PATH, async c => {
    const { definitions } = await import('../contract.ts')
    const isDryRun = readFlag(c, 'dry_run')
    return c.json(await model.import(await readBody(c, definitions), { isDryRun }))
  })
}
