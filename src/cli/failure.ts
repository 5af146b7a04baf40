/** The operation failed for a reason outside the program. The message is the one line the user sees: what, why, what to do. */
export class Failure extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'Failure'
  }
}
