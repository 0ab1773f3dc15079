import { describe, expect, test } from 'vitest'
import { rangeProblem, urlProblem } from '../../src/plan/address.ts'

describe('address ranges', () => {
  test.each(['10.0.0.0/8', '192.168.1.0/24', '127.0.0.1/32', '::1/128', 'fd00:12::/32', '2001:db8::/32', 'FD00::/16'])(
    'takes %s',
    (range) => {
      expect(rangeProblem(range)).toBeNull()
    },
  )

  test.each([
    '',
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '010.0.0.0/8',
    '10.0.0/24',
    '10.0.0.0.0/8',
    '256.0.0.0/8',
    '10.1.0.0/8',
    '0.0.0.0/0',
    '10.0.0.0/7',
    '::/0',
    'fd00::/15',
    'fd00::1/32',
    'fe80::/10',
    '169.254.0.0/16',
    '169.254.169.254/32',
    '168.0.0.0/7',
    '::ffff:10.0.0.0/104',
    '::ffff:a00:0/104',
    'localhost/8',
    '127.1/8',
    '0x7f.0.0.1/8',
    '1:2:3/48',
    '::1/129',
    'fe80::1%eth0/64',
    ' 10.0.0.0/8',
    '10.0.0.0/8\n',
    '٣.0.0.0/8',
  ])('refuses %j', (range) => {
    expect(rangeProblem(range)).not.toBeNull()
  })
})

describe('service URLs', () => {
  test.each([
    ['https://a.example', []],
    ['https://a.example:8443/v1/', []],
    ['https://[2001:db8::1]/', []],
    ['http://localhost:8080', ['127.0.0.0/8', '::1/128']],
    ['http://127.0.0.1:8080', ['127.0.0.1/32']],
  ])('takes %s', (url, addresses) => {
    expect(urlProblem(url, addresses)).toBeNull()
  })

  test.each([
    ['', []],
    ['a.example', []],
    ['https://', []],
    ['https://a.example/\tb', []],
    ['https://a.example/ b', []],
    ['https://ä.example', []],
    ['https://a@b.example', []],
    ['https://:p@b.example', []],
    ['https://a.example?', []],
    ['https://a.example#', []],
    ['https://a.example\\b', []],
    ['https://a.example/%2e%2e/x', []],
    ['https://a.example/%5Cx', []],
    ['https://a.example/a/../b', []],
    ['https://a.example/a/..', []],
    ['http://127.0.0.1', []],
    ['http://127.0.0.1', ['128.0.0.0/8']],
    ['http://127.0.0.1', ['127.0.0.0/8', '10.0.0.0/8']],
    ['http://[::1]', ['::/16']],
    ['ftp://a.example', ['127.0.0.0/8']],
    ['javascript:alert(1)', []],
    ['unix:/run/docker.sock', []],
  ])('refuses %j', (url, addresses) => {
    expect(urlProblem(url, addresses)).not.toBeNull()
  })
})
