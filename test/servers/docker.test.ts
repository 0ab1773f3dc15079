import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { dockerdMissing, startDockerd } from './docker.ts'
import { engine, engineAt } from './engine.ts'

test.for([
  ['an engine', false],
  ['a newer engine', true],
] as const)(
  '%s of a test answers, comes back over its own folder, and leaves no process, mount, group or file',
  async ([, newer], ctx) => {
    const missing = dockerdMissing(newer)
    if (missing !== null) return ctx.skip(missing)
    const dockerd = await startDockerd({ newer })
    try {
      expect(await engineAt(dockerd.host)).toMatchObject({ host: dockerd.host })
      dockerd.kill()
      await dockerd.restart()
      expect(await engineAt(dockerd.host)).not.toBeNull()
    } finally {
      await dockerd.stop()
    }
    expect(await engineAt(dockerd.host)).toBeNull()
    expect(existsSync(dockerd.folder)).toBe(false)
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(dockerd.folder)
    const commands = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && name !== String(process.pid))
      .map((name) => {
        try {
          return readFileSync(join('/proc', name, 'cmdline'), 'utf8')
        } catch {
          return ''
        }
      })
    expect(commands.filter((command) => command.includes(dockerd.folder))).toEqual([])
  },
)

test('what an engine lacks is said with a way to get it', async () => {
  const found = await engine({ images: ['writ-test-no-such-image:latest'] })
  expect(found).toMatchObject({ lacking: expect.stringContaining('docker.sh') as string })
})
