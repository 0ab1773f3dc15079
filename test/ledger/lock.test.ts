import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { WritError } from '../../src/error.ts'
import { lockFolder } from '../../src/ledger/sqlite/lock.ts'
import { folder } from './folder.ts'

function code(work: () => unknown): string {
  try {
    work()
    return 'done'
  } catch (error) {
    if (error instanceof WritError) return error.code
    throw error
  }
}

/** A process that holds the lock until it is ended. */
async function holder(dir: string): Promise<ChildProcess> {
  const lock = new URL('../../src/ledger/sqlite/lock.ts', import.meta.url).href
  const program = `const { lockFolder } = await import('${lock}'); lockFolder(${JSON.stringify(dir)}); console.log('held'); setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {},
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  return child
}

async function ended(child: ChildProcess): Promise<void> {
  await new Promise((resolve) => {
    child.on('close', resolve)
    child.kill('SIGKILL')
  })
}

it('[G-one-broker] lets one process hold a data folder, and the next one as soon as the first is killed -9', async () => {
  const dir = join(folder(), 'data')
  for (let round = 0; round < 3; round++) {
    const child = await holder(dir)
    expect(code(() => lockFolder(dir))).toBe('broker_running')
    await ended(child)
    const lock = lockFolder(dir)
    lock.release()
  }
})

it('is not lost by asking for it twice in one process', async () => {
  const dir = folder()
  const lock = lockFolder(dir)
  expect(code(() => lockFolder(dir))).toBe('broker_running')
  // Were the kernel's lock dropped by the second attempt, another process would get it now.
  const program = `const { lockFolder } = await import('${new URL('../../src/ledger/sqlite/lock.ts', import.meta.url).href}'); try { lockFolder(${JSON.stringify(dir)}); process.exit(0) } catch (error) { process.exit(error.code === 'broker_running' ? 7 : 1) }`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore', env: {} })
  expect(await new Promise((resolve) => child.on('close', resolve))).toBe(7)
  lock.release()
  lock.release()
  lockFolder(dir).release()
})

it('makes the folder for its owner alone, and says nothing of its path', () => {
  const dir = join(folder(), 'a', 'b')
  const lock = lockFolder(dir)
  expect((statSync(dir).mode & 0o777).toString(8)).toBe('700')
  expect((statSync(join(dir, 'broker.lock')).mode & 0o777).toString(8)).toBe('600')
  expect(() => lockFolder(dir)).toThrow(/^another broker holds this data folder$/)
  lock.release()
})
