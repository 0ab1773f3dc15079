import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestContext } from 'vitest'
import type { Between } from '../executor/docker/between.ts'
import { openBetween } from '../executor/docker/between.ts'
import { engine } from '../servers/engine.ts'
import { openPlace, type Place } from './docker/place.ts'

/*
 * D-19: a broker that was taken over sends a run host the plan of a weaker container. What stands between the run host
 * and the engine here writes down each request: none of these plans is asked of the engine.
 */

type Body = { HostConfig: Record<string, unknown> } & Record<string, unknown>

const weaker: Readonly<Record<string, (create: Body) => void>> = {
  Privileged: ({ HostConfig }) => (HostConfig['Privileged'] = true),
  'Binds of /': ({ HostConfig }) => (HostConfig['Binds'] = ['/:/host']),
  CapAdd: ({ HostConfig }) => (HostConfig['CapAdd'] = ['SYS_ADMIN']),
  'PidMode host': ({ HostConfig }) => (HostConfig['PidMode'] = 'host'),
  'NetworkMode of another container': ({ HostConfig }) => (HostConfig['NetworkMode'] = 'container:x'),
  'no MaskedPaths': ({ HostConfig }) => (HostConfig['MaskedPaths'] = []),
  'SecurityOpt unconfined': ({ HostConfig }) =>
    (HostConfig['SecurityOpt'] = ['no-new-privileges:true', 'seccomp=unconfined']),
  'another user': (create) => (create['User'] = '0:0'),
  'a member nobody knows': (create) => (create['Unknown'] = true),
}

let lacking: string | null = null
let between: Between | null = null
let place: Place | null = null

beforeAll(async () => {
  const found = await engine({ images: ['writ/python:latest'] })
  if ('lacking' in found) {
    lacking = found.lacking
    return
  }
  between = await openBetween(found.host)
  place = await openPlace({ ...found, host: between.host }, null, 'writ/python', `tamper-${process.pid}`)
}, 60_000)

afterAll(async () => {
  await place?.close()
  await between?.close()
})

async function ran(ctx: TestContext, tamper: (create: Body) => void): Promise<{ end: unknown; created: number }> {
  if (lacking !== null) return ctx.skip(lacking)
  if (place === null || between === null) throw new Error('there is no run host')
  const from = between.requests.length
  const { end, stdout } = await place.run({
    files: { 'm.py': "print('ran')" },
    argv: [['python3', 'm.py']],
    tamper: (plan) => tamper((plan['engine'] as { readonly create: Body }).create),
  })
  const asked = between.requests.slice(from)
  return {
    end: { ...end.outcome, stdout },
    created: asked.filter((line) => line.startsWith('POST ') && line.endsWith('/containers/create')).length,
  }
}

describe('a run host that is sent a plan', () => {
  test('as the broker makes it asks the engine for one container, and the work is done', async (ctx) => {
    expect(await ran(ctx, () => undefined)).toMatchObject({ end: { end: 'exited', stdout: 'ran\n' }, created: 1 })
  })

  test.for(Object.keys(weaker))(
    'with %s starts nothing and asks the engine for none [G-container-body]',
    async (what, ctx) => {
      expect(await ran(ctx, weaker[what] ?? (() => undefined))).toMatchObject({
        end: {
          end: 'not_started',
          stdout: '',
          error: { code: 'internal', message: 'the plan says a container that this Writ does not create' },
        },
        created: 0,
      })
    },
  )
})
