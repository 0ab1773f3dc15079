import { connect } from 'node:net'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { HttpLimits } from '../../src/http/settings.ts'
import { accessToken, type Issuer, newPair, openIssuer, settingsOf } from '../identity/issuer.ts'
import { folder } from '../ledger/folder.ts'
import { until } from '../wait.ts'
import { type Edge, messagesOf, openEdge, post, statelessCall, statelessHeaders } from './edge.ts'

const wait = { execution_id: 'exec_bbbbbbbbbb', wait_ms: 20_000 }
const brief = { ...wait, wait_ms: 400 }

/** The edge in front of an issuer, and its access tokens as they are `left` seconds before their `exp`. */
async function openWorld(limits: Partial<HttpLimits> = {}): Promise<{
  readonly edge: Edge
  readonly issuer: Issuer
  token(left: number): Promise<string>
}> {
  const issuer = await openIssuer()
  const pair = await newPair('ES256', 'one')
  issuer.keys = [pair.jwk]
  const edge = await openEdge({ limits, oauth: settingsOf(folder(), [{ issuer, more: { audience: 'writ' } }]) })
  return {
    edge,
    issuer,
    async token(left) {
      const exp = systemClock.now() / 1000 + left
      return await accessToken(issuer, pair, systemClock, { claims: { aud: 'writ', iat: exp - 600, exp } })
    },
  }
}

it('an access token that is over by another clock than ours, by less than clocks may differ, is acted on and answered', async () => {
  const { edge, token } = await openWorld()
  const sent = await post(
    edge.url,
    await token(-30),
    statelessCall(1, 'get_status', brief),
    statelessHeaders('get_status'),
  )
  expect(sent.status).toBe(200)
  expect((await messagesOf(sent))[0]).toMatchObject({ id: 1, result: {} })
  const over = await post(
    edge.url,
    await token(-61),
    statelessCall(2, 'get_status', {}),
    statelessHeaders('get_status'),
  )
  expect(over.status).toBe(401)
  expect(edge.broker.seen.called.length).toBe(1)
})

it('a wait ends with the access token it was opened with, when that would not be taken any more', async () => {
  const { edge, token } = await openWorld()
  const began = performance.now()
  const sent = post(edge.url, await token(-54), statelessCall(1, 'get_status', wait), statelessHeaders('get_status'))
  await expect(sent.then(async (response) => await response.text())).rejects.toThrow(/terminated|fetch failed/)
  await until('the wait is over', () => edge.broker.seen.aborted === 1)
  const took = performance.now() - began
  expect(took).toBeGreaterThan(1000)
  expect(took).toBeLessThan(18_000)
})

it('a client that goes while its token is looked at keeps none of the places of its person', async () => {
  const { edge, issuer, token } = await openWorld({ requests_per_caller: 1 })
  const shown = await token(600)
  const answering = Promise.withResolvers<void>()
  issuer.before = answering.promise
  const { hostname, port, host } = new URL(edge.url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.write(`POST /mcp HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${shown}\r\ncontent-length: 100\r\n\r\n`)
  await until('its issuer is asked for keys', () => issuer.asked.length > 0)
  socket.destroy()
  await until('it is gone', () => edge.http.connections() === 0)
  answering.resolve()
  // The first may overtake what is left of the one that is gone.
  for (let at = 1; at <= 2; at++) {
    const sent = await post(edge.url, shown, statelessCall(at, 'get_status', brief), statelessHeaders('get_status'))
    expect([at, sent.status]).toEqual([at, 200])
    await sent.text()
  }
})
