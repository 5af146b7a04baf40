/*
 * `node bystander-process.ts MILLISECONDS`: keeps a processor busy as an attacker does, and leaves the gateway alone. On two cores three busy processes wait for one
 * another; with this one beside them the clients see what of that is not the attacker's doing.
 */
const endsAtMs = performance.now() + Number(process.argv[2])
while (performance.now() < endsAtMs);
