import { expect, it } from 'vitest'
import { openFailures } from '../../src/http/failures.ts'
import { handClock } from '../ledger/sample.ts'

it('counts refused tokens by address for about a minute', () => {
  const clock = handClock(0)
  const failures = openFailures(clock)
  expect([failures.worst(), failures.addresses()]).toEqual([0, 0])
  for (let second = 0; second < 25; second++) {
    clock.set(second * 1000)
    failures.note('192.0.2.1')
    if (second % 5 === 0) failures.note(`198.51.100.${second}`)
  }
  expect([failures.worst(), failures.addresses()]).toEqual([25, 6])
  clock.set(40_000)
  failures.note('192.0.2.1')
  expect([failures.worst(), failures.addresses()]).toEqual([26, 6])
  clock.set(71_000)
  expect([failures.worst(), failures.addresses()]).toEqual([1, 1])
  clock.set(200_000)
  expect([failures.worst(), failures.addresses()]).toEqual([0, 0])
})

it('holds no more than a bounded number of addresses, however many there are', () => {
  const failures = openFailures(handClock(0))
  for (let i = 0; i < 20_000; i++) failures.note(`address ${i}`)
  expect(failures.addresses()).toBe(4097)
  expect(failures.worst()).toBe(20_000 - 4096)
})
