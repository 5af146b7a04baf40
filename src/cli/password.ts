import { Failure } from './failure.ts'

const PASSWORD_BYTES_MAX = 1024
const INTERRUPT = '\u0003'
const END = '\u0004'
const BACKSPACES = ['\b', '\u007f']

/** The first line of standard input. */
export async function passwordFromInput(): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk)
    length += chunk.length
    if (chunk.includes('\n') || length > PASSWORD_BYTES_MAX) break
  }
  process.stdin.destroy()
  return checked(/^[^\r\n]*/.exec(Buffer.concat(chunks).toString())?.[0] ?? '')
}

/** Asks twice on the terminal, without showing what is typed. */
export async function passwordFromTerminal(user: string): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new Failure('Standard input is no terminal to ask for a password; give it there with --stdin.')
  }
  const password = checked(await ask(`password for ${user}: `))
  if ((await ask('again: ')) !== password) throw new Failure('The two passwords differ; nothing was changed.')
  return password
}

function checked(password: string): string {
  if (password === '') throw new Failure('The password is empty; nothing was changed.')
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) {
    throw new Failure(`The password has more than ${PASSWORD_BYTES_MAX} bytes; nothing was changed.`)
  }
  return password
}

function ask(question: string): Promise<string> {
  const { stdin, stderr } = process
  stderr.write(question)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8')
  return new Promise((resolve, reject) => {
    let typed = ''
    const stop = (): void => {
      stdin.off('data', take)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
    }
    const take = (text: string): void => {
      for (const character of text) {
        if (character === '\r' || character === '\n') {
          stop()
          resolve(typed)
          return
        }
        if (character === INTERRUPT || character === END) {
          stop()
          reject(new Failure('Nothing was changed.'))
          return
        }
        typed = BACKSPACES.includes(character) ? [...typed].slice(0, -1).join('') : typed + character
      }
    }
    stdin.on('data', take)
    stdin.resume()
  })
}
