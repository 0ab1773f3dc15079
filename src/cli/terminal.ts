import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
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
export function askSecret(question: string): string {
  return onTerminal((fd) => {
    const stream = new ReadStream(fd)
    // Raw before the question, so that nothing typed early is shown either.
    stream.setRawMode(true)
    try {
      writeSync(fd, question)
      return readLine(fd)
    } finally {
      stream.setRawMode(false)
      writeSync(fd, '\n')
    }
  })
}

/** Whether the person at the terminal types `yes`. */
export function confirm(question: string): boolean {
  return onTerminal((fd) => {
    writeSync(fd, question)
    return readLine(fd).trim() === 'yes'
  })
}

function onTerminal<T>(use: (fd: number) => T): T {
  let fd: number
  try {
    fd = openSync('/dev/tty', 'r+')
  } catch (failure) {
    if (systemCode(failure) === null) throw failure
    throw new WritError('usage', 'There is no terminal to ask on.', {
      remedy: 'Give the passphrase with --passphrase-fd N, or use --ssh-agent --yes.',
    })
  }
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

const enter = new Set([0x0a, 0x0d])
const interrupt = 0x03
const endOfInput = 0x04
const erase = new Set([0x7f, 0x08])
const eraseLine = 0x15

/** One line, byte by byte. In raw mode the keys of the line editor arrive as bytes; elsewhere they do not arrive at all. */
function readLine(fd: number): string {
  let bytes: number[] = []
  const one = Buffer.alloc(1)
  for (;;) {
    if (readSync(fd, one, 0, 1, null) === 0) throw givenUp()
    const byte = one[0] ?? 0
    if (enter.has(byte)) return Buffer.from(bytes).toString('utf8')
    if (byte === interrupt || byte === endOfInput) throw givenUp()
    if (byte === eraseLine) bytes = []
    else if (erase.has(byte)) eraseCharacter(bytes)
    else bytes.push(byte)
  }
}

/** A character may be several bytes of UTF-8; those that continue one go with it. */
function eraseCharacter(bytes: number[]): void {
  for (let byte = bytes.pop(); byte !== undefined && (byte & 0xc0) === 0x80; byte = bytes.pop());
}

function givenUp(): WritError {
  return new WritError('usage', 'Given up; nothing was signed.', { remedy: 'Run it again when you are ready.' })
}
