/*
 * The normative statements of the MQTT standards as data: their numbers are the standards' own, their words are ours.
 */

/**
 * Whom a statement binds. `checked` binds clients, and a server has to notice when one breaks it; of what binds clients only (`client`) there is
 * nothing to show here.
 */
export type Side = 'server' | 'both' | 'checked' | 'client'

export interface Statement {
  /** Section and number: `3.1.2-24` of `[MQTT-3.1.2-24]`. */
  readonly id: string
  readonly side: Side
  readonly summary: string
  /** The statement of 5.0 that asks for the same: what satisfies and shows that one does so for this one. */
  readonly like: string | null
  /** Why the case it speaks of never arises here; null: it does. */
  readonly moot: string | null
}

/** What is known of a statement besides its words. */
type Rest = Partial<Pick<Statement, 'like' | 'moot'>>

const statement =
  (side: Side) =>
  (id: string, summary: string, { like = null, moot = null }: Rest = {}): Statement => ({
    id,
    side,
    summary,
    like,
    moot,
  })

export const server = statement('server')
export const both = statement('both')
export const checked = statement('checked')
export const client = statement('client')
