import { randomBytes } from 'node:crypto'
import { afterAll, expect, it } from 'vitest'
import { sendRaw } from '../http/raw.ts'
import { openDesk, openTestBroker, sha256 } from './broker.ts'

const broker = await openTestBroker()
afterAll(async () => await broker.stop())

const bytes = randomBytes(4000)

function head(url: string, line = 'PUT', length = bytes.length): string {
  const { host, pathname } = new URL(url)
  return `${line} ${pathname} HTTP/1.1\r\nhost: ${host}\r\ncontent-length: ${String(length)}\r\nexpect: 100-continue\r\n\r\n`
}

it('on loopback too, a client that asks first is told to go on once URL, policy and room were looked at, and not before', async () => {
  let roles: readonly string[] = broker.caller.roles
  const { desk, close } = openDesk(broker, { parts: { rolesOf: () => roles } })
  const id = await broker.task()
  const task = broker.served.parts.ledger.views.tasks('default', 10).find((one) => one.id === id)
  if (task === undefined) throw new Error('no task')
  const { url } = await desk.issueUpload(broker.caller, task, { path: 'x', size: bytes.length, sha256: sha256(bytes) })
  const asked = async (...given: Parameters<typeof head>): Promise<string> => (await sendRaw(url, head(...given))).text
  expect(await asked(url.replace(/[^/]{43}$/, 'x'.repeat(43)))).toMatch(/^HTTP\/1\.1 404 /)
  expect(await asked(url, 'POST')).toMatch(/^HTTP\/1\.1 405 /)
  expect(await asked(url, 'PUT', 10)).toMatch(/^HTTP\/1\.1 400 /)
  roles = []
  expect(await asked(url)).toMatch(/^HTTP\/1\.1 403 /)
  roles = broker.caller.roles
  const { text } = await sendRaw(url, [head(url), 500, bytes], { answers: 2 })
  expect(text).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 /)
  await close()
})
