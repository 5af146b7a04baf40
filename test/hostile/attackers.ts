/* All of them, in the order in which a gateway meets them: those that leave something behind come last. */
import type { Attacker } from './attacker.ts'
import { connecting } from './attackers/connecting.ts'
import { garbage } from './attackers/garbage.ts'
import { http } from './attackers/http.ts'
import { publishing } from './attackers/publishing.ts'
import { receiving } from './attackers/receiving.ts'
import { sessions } from './attackers/sessions.ts'
import { encrypted } from './attackers/tls.ts'
import { topics } from './attackers/topics.ts'

export const ATTACKERS: readonly Attacker[] = [
  ...connecting,
  ...encrypted,
  ...garbage,
  ...http,
  ...receiving,
  ...publishing,
  ...topics,
  ...sessions,
]
