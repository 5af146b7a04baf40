import { runCli } from './cli/main.ts'

// No top-level await: the executable is one CommonJS file.
void runCli(process.argv.slice(2))
