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
export interface Subject {
  /** As it has proved to be; null: nobody in particular. */
  readonly user: string | null
  readonly clientId: string
  readonly groups: readonly string[]
}

const EVERYBODY = '*'
const PLACEHOLDER = /%[cu]/g

interface Step {
  readonly isAllowed: boolean
  readonly pattern: FilterLevels
}

/** The rules as they are for one subject. */
interface Compiled {
  readonly publish: readonly Step[]
  readonly subscribe: readonly Step[]
  readonly consume: ReadonlySet<string>
}

export class AccessRules {
  #rules: readonly AccessRule[]
  #version = 1

  constructor(rules: readonly AccessRule[]) {
    this.#rules = rules
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
    this.#rules = rules
    this.#version++
  }

  for(subject: Subject): Permissions {
    return new Permissions(this, subject)
  }

  /** Null: there are no rules. */
  compile(subject: Subject): Compiled | null {
    if (this.isEmpty) return null
    const publish: Step[] = []
    const subscribe: Step[] = []
    const consume = new Set<string>()
    for (const rule of this.#rules) {
      if (!isFor(rule, subject)) continue
      const isExcluded = isUnusable(rule, subject)
      const patterns = (texts: readonly string[]): Iterable<string> => filledIn(texts, subject, isExcluded)
      const allowed = (texts: readonly string[]): Iterable<string> => (isExcluded ? [] : patterns(texts))
      publish.push(...steps(patterns(rule.denyPublish), false), ...steps(allowed(rule.publish), true))
      subscribe.push(...steps(patterns(rule.denySubscribe), false), ...steps(allowed(rule.subscribe), true))
      for (const name of allowed(rule.consume)) consume.add(name)
    }
    return { publish, subscribe, consume }
  }
}

/** What one client may do, by the rules there are at the moment of asking. */
export class Permissions {
  readonly #rules: AccessRules
  readonly #subject: Subject
  #compiled: Compiled | null = null
  #version = 0

  constructor(rules: AccessRules, subject: Subject) {
    this.#rules = rules
    this.#subject = subject
  }

  /** `topic` has passed as one: no wildcards. */
  mayPublish(topic: string): boolean {
    const rules = this.#current()
    return rules === null || decide(rules.publish, topic)
  }

  /** `filter` selects topics: the FILTER of `$share/GROUP/FILTER`, not the whole; a topic stands for what a message of it needs. */
  maySubscribe(filter: string): boolean {
    const rules = this.#current()
    return rules === null || decide(rules.subscribe, filter)
  }

  /** To take from the queue or read the stream of that name. */
  mayConsume(name: string): boolean {
    const rules = this.#current()
    return rules === null || rules.consume.has(name)
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

function decide(steps: readonly Step[], filter: string): boolean {
  const levels = filterLevels(filter)
  for (const { isAllowed, pattern } of steps) {
    if (isAllowed ? covers(pattern, levels) : overlaps(pattern, levels)) return isAllowed
  }
  return false
}

function isFor({ user, group }: AccessRule, subject: Subject): boolean {
  if (group !== null) return subject.groups.includes(group)
  return user === EVERYBODY || (user !== null && user === subject.user)
}

/**
 * A rule with a placeholder for a name that would change what the pattern means. It allows nothing, and denies what it says without placeholders: a client
 * that chooses its identifier must not escape from that.
 */
function isUnusable(rule: AccessRule, { user, clientId }: Subject): boolean {
  const texts = [rule.publish, rule.denyPublish, rule.subscribe, rule.denySubscribe, rule.consume].flat()
  const uses = (placeholder: string): boolean => texts.some(text => text.includes(placeholder))
  return (uses('%c') && !isOneLevel(clientId)) || (uses('%u') && !isOneLevel(user))
}

const isOneLevel = (name: string | null): boolean => name !== null && /^[^+#/]+$/.test(name)

/** With placeholders filled in; those alone that have none, if the subject is excluded from the others. */
function* filledIn(texts: readonly string[], { user, clientId }: Subject, isExcluded: boolean): Iterable<string> {
  for (const text of texts) {
    const filled = text.replace(PLACEHOLDER, placeholder => (placeholder === '%c' ? clientId : (user ?? '')))
    // Nobody gets below $SYS/ by calling itself so.
    const isHidden = filled.startsWith('$') && !text.startsWith('$')
    if (!isHidden && (!isExcluded || filled === text)) yield filled
  }
}

const steps = (patterns: Iterable<string>, isAllowed: boolean): Step[] =>
  Array.from(patterns, pattern => ({ isAllowed, pattern: filterLevels(pattern) }))
