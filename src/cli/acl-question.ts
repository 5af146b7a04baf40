import { InvalidArgumentError } from 'commander'
import { ACTS, type AccessRules, type Act, type Decision } from '../core/acl.ts'

const KEYS = ['client', 'user', 'group', ...ACTS] as const
type Key = (typeof KEYS)[number]

/** One `KEY=VALUE` of what somebody asks the rules of `auth.acl`. */
export interface QuestionPart {
  readonly key: Key
  readonly value: string
}

/** Takes one more part, for commander. */
export function readPart(word: string, before: readonly QuestionPart[] = []): readonly QuestionPart[] {
  const equals = word.indexOf('=')
  const key = KEYS.find(known => known === word.slice(0, Math.max(0, equals)))
  if (key === undefined) throw new InvalidArgumentError(`Accepted are ${KEYS.map(known => `${known}=`).join(', ')}.`)
  return [...before, { key, value: word.slice(equals + 1) }]
}

export interface Answer extends Decision {
  readonly act: Act
  readonly what: string
}

/** Asks the rules for each act among the parts. `groupsOf` knows the groups of a user, besides those that are given. */
export function askRules(
  rules: AccessRules,
  parts: readonly QuestionPart[],
  groupsOf: (user: string) => readonly string[],
): Answer[] {
  const valuesOf = (wanted: Key): string[] => parts.filter(({ key }) => key === wanted).map(({ value }) => value)
  const user = valuesOf('user').at(-1) ?? null
  const groups = [...valuesOf('group'), ...(user === null ? [] : groupsOf(user))]
  const permissions = rules.for({ user, groups }, valuesOf('client').at(-1) ?? '')
  return ACTS.flatMap(act => valuesOf(act).map(what => ({ ...permissions.judge(act, what), act, what })))
}

/** `refused  publish a/b  no rule allows it` */
export function answerLine({ act, what, isAllowed, rule }: Answer, rules: AccessRules): string {
  const why = rule !== null ? `by rule ${rule}` : rules.isEmpty ? 'there are no rules' : 'no rule allows it'
  return `${isAllowed ? 'allowed' : 'refused'}  ${act} ${what}  ${why}`
}
