import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { findCage } from '../../../src/executor/isolate/cage.ts'
import { until } from '../../wait.ts'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** A folder where `self` says this process is in these groups. */
function machine(self: string, paths: readonly string[]): { root: string; self: string } {
  const root = mkdtempSync(join(tmpdir(), 'writ-cage-'))
  folders.push(root)
  // The kernel fills a new group; here the groups that will be made are there already.
  for (const path of paths)
    for (const name of [`writ-probe-${process.pid}`, 'writ-x-1']) {
      mkdirSync(join(root, path, name), { recursive: true })
      writeFileSync(join(root, path, name, 'cgroup.procs'), '')
    }
  writeFileSync(join(root, 'self'), self)
  return { root, self: join(root, 'self') }
}

describe('the cage', () => {
  test('is made of version 1 groups where memory and pids are mounted so', () => {
    const at = machine('8:pids:/svc\n4:memory:/svc\n0::/\n', ['memory/svc', 'pids/svc'])
    const cages = findCage(at)
    expect(cages.kind).toBe('cgroup1')
    const cage = cages.make('writ-x-1')
    cage.limit(100)
    expect(readFileSync(join(at.root, 'memory/svc/writ-x-1/memory.limit_in_bytes'), 'utf8')).toBe(
      String(100 * 1024 * 1024),
    )
    expect(cage.joins).toEqual([
      join(at.root, 'memory/svc/writ-x-1/cgroup.procs'),
      join(at.root, 'pids/svc/writ-x-1/cgroup.procs'),
    ])
    writeFileSync(
      join(at.root, 'memory/svc/writ-x-1/memory.oom_control'),
      'oom_kill_disable 0\nunder_oom 0\noom_kill 3\n',
    )
    expect(cage.kills()).toBe(3)
  })

  test('is made of version 2 groups where there is one hierarchy', () => {
    const at = machine('0::/user.slice/app.scope\n', ['user.slice/app.scope'])
    const cages = findCage(at)
    expect(cages.kind).toBe('cgroup2')
    const cage = cages.make('writ-x-1')
    cage.limit(50)
    expect(readFileSync(join(at.root, 'user.slice/app.scope/writ-x-1/memory.max'), 'utf8')).toBe(
      String(50 * 1024 * 1024),
    )
    expect(readFileSync(join(at.root, 'user.slice/app.scope/writ-x-1/pids.max'), 'utf8')).toBe('64')
    expect(cage.kills()).toBe(0)
  })

  test('is resource limits where no group can be made', () => {
    expect(findCage(machine('', [])).kind).toBe('rlimit')
    const plain = mkdtempSync(join(tmpdir(), 'writ-cage-'))
    folders.push(plain)
    mkdirSync(join(plain, 'svc'))
    writeFileSync(join(plain, 'self'), '0::/svc\n')
    expect(findCage({ root: plain, self: join(plain, 'self') }).kind).toBe('rlimit')
    expect(existsSync(join(plain, 'svc', `writ-probe-${process.pid}`))).toBe(false)
  })

  test('sweeps what a dead run host of this broker left, and nobody else’s', async (ctx) => {
    const cages = findCage()
    if (cages.kind === 'rlimit')
      ctx.skip('control groups are missing: run as root, or delegate memory and pids to this user')
    const mine = cages.make(`writ-sweepmine${process.pid}-1`)
    const other = cages.make(`writ-sweepother${process.pid}-1`)
    expect(cages.sweep(`writ-sweepmine${process.pid}-`, new Set())).toBe(1)
    await until('the group of the dead is gone', () => !mine.joins.some((file) => existsSync(file)))
    expect(other.joins.filter((file) => existsSync(file))).toEqual(other.joins)
    await other.remove()
  })
})
