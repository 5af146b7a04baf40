/*
 * Who may publish, subscribe and consume what: rules of the configuration, `auth.acl` (docs/security.md).
 *
 * Invariants
 * - No rule at all: everything is allowed. Any rule: what none of them decides is refused.
 * - Rules are asked in their order, and the first that decides does; within one rule what it denies comes first.
 * - A pattern allows a filter that it covers as a whole and denies one that it overlaps, so a subscription that is allowed never gets a message that a
 *   subscription to its very topic would be refused.
 */
import { covers, type FilterLevels, filterLevels, overlaps } from '../model/filter-cover.ts'
import type { Identity } from './access.ts'

/** One rule. A list that is empty says nothing of its act. */
export interface AccessRule {
  /** The user it is for, or `*` for everybody, whether they gave a name or not; null: it is for a group. */
  readonly user: string | null
  readonly group: string | null
  /** MQTT filters, with `%c` for the client identifier and `%u` for the user. */
  readonly publish: readonly string[]
  readonly denyPublish: readonly string[]
  readonly subscribe: readonly string[]
  readonly denySubscribe: readonly string[]
  /** Names of queues and streams, with the same. */
  readonly consume: readonly string[]
}

/** Who asks. */
export interface Subject extends Identity {
  readonly clientId: string
}

export const ACTS = ['publish', 'subscribe', 'consume'] as const
export type Act = (typeof ACTS)[number]

export interface Decision {
  readonly isAllowed: boolean
  /** Which rule decided, counted from 1; null: there are no rules, or none of them did. */
  readonly rule: number | null
}

const WITHOUT_RULES: Decision = { isAllowed: true, rule: null }
const UNDECIDED: Decision = { isAllowed: false, rule: null }

const EVERYBODY = '*'
const PLACEHOLDER = /%[cu]/g
/** In a name that stands for one level of a filter. */
const MEANS_MORE = /[+#/]/

/** A pattern, and what it means for a filter it covers (allowed) or overlaps (denied). */
interface Step extends Decision {
  readonly pattern: FilterLevels
}

/** A pattern with names still to be filled in. */
interface Template extends Decision {
  readonly text: string
}

/** A rule with what it denies before what it allows. */
interface PreparedRule extends Pick<AccessRule, 'user' | 'group' | 'consume'> {
  /** Counted from 1. */
  readonly rule: number
  readonly publish: readonly (Step | Template)[]
  readonly subscribe: readonly (Step | Template)[]
  readonly namesClient: boolean
  readonly namesUser: boolean
}

/** The rules as they are for one subject. */
interface Compiled {
  readonly publish: readonly Step[]
  readonly subscribe: readonly Step[]
  /** By name. */
  readonly consume: ReadonlyMap<string, Decision>
}

export class AccessRules {
  #rules: readonly PreparedRule[]
  #version = 1

  constructor(rules: readonly AccessRule[]) {
    this.#rules = rules.map(prepare)
  }

  /** Rises with every change: a decision is good as long as this is what it was. */
  get version(): number {
    return this.#version
  }

  /** Without rules everybody may do everything. */
  get isEmpty(): boolean {
    return this.#rules.length === 0
  }

  replace(rules: readonly AccessRule[]): void {
    this.#rules = rules.map(prepare)
    this.#version++
  }

  for({ user, groups }: Identity, clientId: string): Permissions {
    return new Permissions(this, { user, groups, clientId })
  }

  /** Null: there are no rules. */
  compile(subject: Subject): Compiled | null {
    if (this.isEmpty) return null
    const publish: Step[] = []
    const subscribe: Step[] = []
    const consume = new Map<string, Decision>()
    for (const rule of this.#rules) {
      if (!isFor(rule, subject)) continue
      const isExcluded = isUnusable(rule, subject)
      addSteps(publish, rule.publish, subject, isExcluded)
      addSteps(subscribe, rule.subscribe, subject, isExcluded)
      if (isExcluded) continue
      for (const name of rule.consume) {
        const filled = fillIn(name, subject)
        if (filled !== null && !consume.has(filled)) consume.set(filled, { isAllowed: true, rule: rule.rule })
      }
    }
    return { publish, subscribe, consume }
  }
}

/** What one client may do, by the rules there are at the moment of asking. */
export class Permissions {
  readonly #rules: AccessRules
  #subject: Subject
  #compiled: Compiled | null = null
  #version = 0

  constructor(rules: AccessRules, subject: Subject) {
    this.#rules = rules
    this.#subject = subject
  }

  /** The client is in other groups now. */
  become({ user, groups }: Identity): void {
    this.#subject = { ...this.#subject, user, groups }
    this.#version = 0
  }

  /** `topic` has passed as one: no wildcards. */
  mayPublish(topic: string): boolean {
    return this.judge('publish', topic).isAllowed
  }

  /** `filter` selects topics: the FILTER of `$share/GROUP/FILTER`, not the whole; a topic stands for what a message of it needs. */
  maySubscribe(filter: string): boolean {
    return this.judge('subscribe', filter).isAllowed
  }

  /** To take from the queue or read the stream of that name. */
  mayConsume(name: string): boolean {
    return this.judge('consume', name).isAllowed
  }

  /** The same, with the rule that decides. */
  judge(act: Act, what: string): Decision {
    const rules = this.#current()
    if (rules === null) return WITHOUT_RULES
    return act === 'consume' ? (rules.consume.get(what) ?? UNDECIDED) : decide(rules[act], what)
  }

  #current(): Compiled | null {
    const { version } = this.#rules
    if (this.#version !== version) {
      this.#compiled = this.#rules.compile(this.#subject)
      this.#version = version
    }
    return this.#compiled
  }
}

function decide(steps: readonly Step[], filter: string): Decision {
  const levels = filterLevels(filter)
  for (const step of steps) {
    const { isAllowed, pattern } = step
    if (isAllowed ? covers(pattern, levels) : overlaps(pattern, levels)) return step
  }
  return UNDECIDED
}

function prepare(
  { user, group, publish, denyPublish, subscribe, denySubscribe, consume }: AccessRule,
  index: number,
): PreparedRule {
  const texts = [publish, denyPublish, subscribe, denySubscribe, consume].flat()
  const rule = index + 1
  const denied = { isAllowed: false, rule }
  const allowed = { isAllowed: true, rule }
  return {
    user,
    group,
    rule,
    publish: [...prepareFilters(denyPublish, denied), ...prepareFilters(publish, allowed)],
    subscribe: [...prepareFilters(denySubscribe, denied), ...prepareFilters(subscribe, allowed)],
    consume,
    namesClient: texts.some(text => text.includes('%c')),
    namesUser: texts.some(text => text.includes('%u')),
  }
}

const prepareFilters = (texts: readonly string[], decision: Decision): (Step | Template)[] =>
  texts.map(text => (/%[cu]/.test(text) ? { ...decision, text } : { ...decision, pattern: filterLevels(text) }))

function isFor({ user, group }: PreparedRule, subject: Subject): boolean {
  if (group !== null) return subject.groups.includes(group)
  return user === EVERYBODY || (user !== null && user === subject.user)
}

/**
 * A rule with a placeholder for a name that would change what the pattern means. It allows nothing, and denies what it says without placeholders: a client
 * that chooses its identifier must not escape from that.
 */
const isUnusable = ({ namesClient, namesUser }: PreparedRule, { user, clientId }: Subject): boolean =>
  (namesClient && MEANS_MORE.test(clientId)) || (namesUser && user !== null && MEANS_MORE.test(user))

function addSteps(to: Step[], steps: readonly (Step | Template)[], subject: Subject, isExcluded: boolean): void {
  for (const step of steps) {
    if ('pattern' in step) {
      if (!isExcluded || !step.isAllowed) to.push(step)
    } else if (!isExcluded) {
      const filled = fillIn(step.text, subject)
      if (filled !== null) to.push({ isAllowed: step.isAllowed, rule: step.rule, pattern: filterLevels(filled) })
    }
  }
}

/** With the names in the places of placeholders. Null: it has no such name; and nobody gets below $SYS/ by calling itself so. */
function fillIn(text: string, { user, clientId }: Subject): string | null {
  const name = user ?? ''
  if (name === '' && text.includes('%u')) return null
  const filled = text.replace(PLACEHOLDER, placeholder => (placeholder === '%c' ? clientId : name))
  return filled.startsWith('$') && !text.startsWith('$') ? null : filled
}
