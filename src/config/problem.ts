/** Where a value came from: a place in the file, or the variable or option that set it. */
export interface Position {
  /** File name, `SLUICE_…` or `--set`. */
  readonly origin: string
  /** From 1; null where it is no file. */
  readonly line: number | null
  readonly column: number | null
}

/** One thing wrong with a configuration. */
export interface ConfigProblem extends Position {
  /** Dotted, such as `routes.telemetry.qos0`; empty where the text has no path yet. */
  readonly path: string
  /** What is wrong, what is accepted, what was probably meant. */
  readonly message: string
}

/** One line for one problem, a heading and a line each for several. */
export function formatProblems(name: string, problems: readonly ConfigProblem[]): string {
  const lines = problems.map(formatProblem)
  return lines.length === 1
    ? lines.join('')
    : `${name} has ${lines.length} errors:\n${lines.map(line => `  ${line}`).join('\n')}`
}

function formatProblem({ origin, line, column, path, message }: ConfigProblem): string {
  const place = line === null ? origin : `${origin}:${line}:${column}`
  return path === '' ? `${place}: ${message}` : `${place}: ${path}: ${message}`
}
