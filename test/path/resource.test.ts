import { afterAll, describe, expect, it } from 'vitest'
import { readMessage } from '../../src/mcp/message.ts'
import { artifactUri, parseUri } from '../../src/path/resource.ts'
import { openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const me = world.broker.caller

describe('a file of a result', () => {
  it('is read under the URI that the result gives, also where its name is long in another script', async () => {
    const path = `${'表'.repeat(80)}/${'報'.repeat(80)}`
    const task_id = await world.task(me, 'sandbox', `writ.writeFile('/out/${path}', 'x')`)
    const { execution_id = '' } = await world.ask(me, 'start_execution', { task_id, wait_ms: 20_000 })
    const { files = [] } = await world.ask(me, 'get_result', { execution_id })
    const uri = files[0]?.uri ?? ''
    expect(await world.broker.served.broker.readResource(me, uri)).toMatchObject({ uri, text: 'x' })
  })

  it('has a URI that a message may hold, however long its path', () => {
    const path = Array.from({ length: 5 }, () => '表'.repeat(68)).join('/')
    expect(Buffer.byteLength(path)).toBe(1024)
    const uri = artifactUri('exec_aaaaaaaaaa', path)
    expect(parseUri(uri)).toEqual({ kind: 'artifact', execution: 'exec_aaaaaaaaaa', path })
    const message = { jsonrpc: '2.0', id: 1, method: 'resources/read', params: { uri } }
    expect(readMessage(Buffer.from(JSON.stringify(message)))).toMatchObject({ kind: 'request' })
  })
})
