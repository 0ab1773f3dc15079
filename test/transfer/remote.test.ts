import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { client2 } from '../http/clients.ts'
import { useHttpWorld } from '../http/world.ts'
import { put, sha256 } from './broker.ts'

const http = await useHttpWorld()
const { world } = http

function made(subject: string, tenant: string): { readonly token: string; readonly token_id: string } {
  const given = ['token', 'create', '--subject', subject, '--role', 'developer', '--tenant', tenant]
  return world.json(given) as ReturnType<typeof made>
}

const bytes = randomBytes(4_000_000)

async function opened(token: string): Promise<{ readonly task: string; ask(path: string): Promise<string> }> {
  const client = await client2('auto', { url: http.url, token })
  const submitted = await client.call('submit_task', {
    project_name: 'remote',
    goal: 'Send a file',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    files: [{ path: 'main.js', content: 'console.log(1)' }],
  })
  const task = String(submitted.structured['task_id'])
  return {
    task,
    async ask(path) {
      const upload = { path, size: bytes.length, sha256: sha256(bytes) }
      const { structured } = await client.call('upload_artifact', { task_id: task, upload })
      return String(structured['upload_url'])
    },
  }
}

it('a remote client sends a file under the server’s own URL; a revoked token’s URLs end with it [G-transfer-decided]', async () => {
  const ann = made('ann', 'acme')
  const { task, ask } = await opened(ann.token)
  const first = await ask('one.bin')
  expect(first.startsWith(`${http.url}/transfer/`)).toBe(true)
  expect(await put(first, bytes)).toMatchObject({ status: 201, json: { task_id: task, state: 'ready' } })
  const second = await ask('two.bin')
  world.json(['token', 'revoke', ann.token_id])
  expect(await put(second, bytes)).toMatchObject({ status: 403, code: 'denied' })
}, 60_000)

it('a tenant’s transfers do not touch another’s: the same bytes, the same path, tasks of their own', async () => {
  const [ann, eve] = await Promise.all([opened(made('ann', 'acme').token), opened(made('eve', 'other').token)])
  const [one, two] = await Promise.all([ann.ask('x.bin'), eve.ask('x.bin')])
  const [first, second] = await Promise.all([put(one, bytes), put(two, bytes)])
  expect(first.json['task_id']).toBe(ann.task)
  expect(second.json['task_id']).toBe(eve.task)
}, 60_000)
