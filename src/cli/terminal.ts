import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { ReadStream } from 'node:tty'
import { systemCode, WritError } from '../error.ts'

/** What stands on a file descriptor the caller opened, without its last line end: a passphrase from a script. */
export function readFd(fd: number): string {
  try {
    return readFileSync(fd, 'utf8').replace(/\r?\n$/, '')
  } catch (failure) {
    const code = systemCode(failure)
    if (code === null) throw failure
    throw new WritError('usage', `File descriptor ${String(fd)} cannot be read (${code}).`, {
      remedy: 'Open it for the command, as in: --passphrase-fd 3 3<FILE',
    })
  }
}

/** Asks on the terminal itself, not on standard input, without showing what is typed. Rejects `usage` when given up. */
export async function askSecret(question: string): Promise<string> {
  return await onTerminal(question, true)
}

/** Whether the person at the terminal types `yes`. */
export async function confirm(question: string): Promise<boolean> {
  return (await onTerminal(question, false)).trim() === 'yes'
}

async function onTerminal(question: string, secret: boolean): Promise<string> {
  let fd: number
  try {
    fd = openSync('/dev/tty', 'r+')
  } catch (failure) {
    if (systemCode(failure) === null) throw failure
    throw new WritError('usage', 'There is no terminal to ask on.', {
      remedy: 'Give the passphrase with --passphrase-fd N, or use --ssh-agent --yes.',
    })
  }
  const stream = new ReadStream(fd)
  try {
    // Raw before the question, so that nothing typed early is shown either.
    if (secret) stream.setRawMode(true)
    writeSync(fd, question)
    return await readLine(stream)
  } finally {
    if (secret) {
      stream.setRawMode(false)
      writeSync(fd, '\n')
    }
    stream.destroy()
    closeSync(fd)
  }
}

const enter = new Set([0x0a, 0x0d])
const interrupt = 0x03
const endOfInput = 0x04
const erase = new Set([0x7f, 0x08])
const eraseLine = 0x15

/** One line, byte by byte. In raw mode the keys of the line editor arrive as bytes; elsewhere they do not arrive at all. */
async function readLine(stream: ReadStream): Promise<string> {
  let bytes: number[] = []
  for await (const chunk of stream)
    for (const byte of chunk as Buffer) {
      if (enter.has(byte)) return Buffer.from(bytes).toString('utf8')
      if (byte === interrupt || byte === endOfInput) throw givenUp()
      if (byte === eraseLine) bytes = []
      else if (erase.has(byte)) eraseCharacter(bytes)
      else bytes.push(byte)
    }
  throw givenUp()
}

/** A character may be several bytes of UTF-8; those that continue one go with it. */
function eraseCharacter(bytes: number[]): void {
  for (let byte = bytes.pop(); byte !== undefined && (byte & 0xc0) === 0x80; byte = bytes.pop());
}

function givenUp(): WritError {
  return new WritError('usage', 'Given up; nothing was signed.', { remedy: 'Run it again when you are ready.' })
}

/** Calls `told` where the person interrupts the command, right before it ends. */
export function onInterrupt(told: () => void): Disposable {
  const ends = (): void => {
    told()
    // Nothing listens any more: the signal ends the process as whoever sent it expects.
    process.kill(process.pid, 'SIGINT')
  }
  process.once('SIGINT', ends)
  return { [Symbol.dispose]: () => void process.off('SIGINT', ends) }
}
