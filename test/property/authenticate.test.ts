import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { accessToken, newPair, openIssuer, openWorld } from '../identity/issuer.ts'

it(
  '[G-token-clear] no Authorization header, made up or made of good tokens, is let in or breaks the check',
  { timeout: 60_000 },
  async () => {
    const issuer = await openIssuer()
    const pair = await newPair('EdDSA', 'k')
    issuer.keys = [pair.jwk]
    const world = openWorld([{ issuer }])
    const jwt = await accessToken(issuer, pair, world.clock)
    const { token } = await world.identity.tokens.create({
      tenant: 'acme',
      subject: { type: 'user', id: 'ada' },
      agent: 'chat',
      roles: [],
      valid_ms: 60_000,
    })
    const good = new Set([jwt, token])
    const piece = fc.oneof(
      fc.constantFrom(
        'Bearer ',
        'bearer',
        ' ',
        ',',
        '.',
        'writ_',
        '=',
        '"',
        '\0',
        '\r\n',
        'eyJhbGciOiJub25lIn0',
        ...good,
      ),
      fc.constantFrom(...jwt.split('.')),
      fc.string({ unit: 'binary', maxLength: 20 }),
      fc.base64String({ maxLength: 40 }),
    )
    const changed = fc
      .tuple(fc.constantFrom(...good), fc.nat(), fc.string({ minLength: 1, maxLength: 2 }))
      .map(([text, at, put]) => {
        const place = at % text.length
        return `Bearer ${text.slice(0, place)}${put}${text.slice(place + 1)}`
      })
    let admitted = 0
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.array(piece, { maxLength: 8 }).map((all) => all.join('')),
          changed,
        ),
        async (header) => {
          const answer = await world.withHeader(header)
          const honest = /^bearer (.*)$/is.exec(header)?.[1]
          if (answer.ok) admitted++
          expect(answer.ok).toBe(honest !== undefined && good.has(honest))
          // What was sent is never sent back.
          if (!answer.ok) expect(answer.challenge).not.toMatch(/writ_[0-9A-Za-z]|eyJ/)
        },
      ),
      { numRuns: 1000 },
    )
    expect(admitted).toBeGreaterThan(0)
  },
)
