import { expect, it } from 'vitest'
import { edgeReason } from '../../src/mcp/refusal.ts'

it('writes a flood of refusals to the log no more than a hundred times a minute', () => {
  let lines = 0
  const line = (): void => void lines++
  const log = { debug: line, info: line, warn: line }
  const refs = new Set(
    Array.from({ length: 10_000 }, () => edgeReason('unknown_tool', 'There is no such tool.', log).ref),
  )
  expect(refs.size).toBe(10_000)
  expect(lines).toBe(100)
})
