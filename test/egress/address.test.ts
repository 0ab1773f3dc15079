import { networkInterfaces } from 'node:os'
import { describe, expect, it } from 'vitest'
import { isLoopback, mayDial, rangesOf } from '../../src/egress/address.ts'

const none = rangesOf([])

describe('an address', () => {
  it.each([
    '8.8.8.8',
    '93.184.215.14',
    '2606:4700::1111',
    '::ffff:8.8.8.8',
    '64:ff9b::808:808',
    '172.15.0.1',
    '172.32.0.1',
    '100.63.255.255',
    '100.128.0.1',
    '223.255.255.255',
  ])('%s is globally routable and may be dialled', (address) => {
    expect(mayDial(address, none)).toBe(true)
  })

  it.each([
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '10.255.255.255',
    '100.64.0.1',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.1.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.1',
    '192.168.1.1',
    '198.18.0.1',
    '198.19.255.255',
    '224.0.0.1',
    '239.1.1.1',
    '240.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    'fc00::1',
    'fd12:3456::1',
    'fe80::1',
    'fec0::1',
    'ff02::1',
    '2001:db8::1',
    '2001::1',
    '100::1',
    '::ffff:127.0.0.1',
    '::ffff:10.0.0.1',
    '::ffff:7f00:1',
    '::127.0.0.1',
    '::ffff:0:127.0.0.1',
    '64:ff9b::10.0.0.1',
    '64:ff9b::7f00:1',
    '64:ff9b:1::a00:1',
    '2002:7f00:1::',
    '2002:a00:1::1',
    '2002:c0a8:101::1',
    '2606:4700::5efe:a00:1',
  ])('[G-egress-address] %s is not dialled unless it is listed', (address) => {
    expect(mayDial(address, none)).toBe(false)
  })

  it.each([
    '169.254.169.254',
    '169.254.170.2',
    '100.100.100.200',
    '168.63.129.16',
    '192.0.0.192',
    'fd00:ec2::254',
    'fd20:ce::254',
    'fd00:c1::a9fe:a9fe',
    'fd00:42::42',
    '::ffff:169.254.169.254',
    '64:ff9b::a9fe:a9fe',
    '2002:a9fe:a9fe::1',
    '::ffff:168.63.129.16',
  ])('[G-egress-address] %s, a metadata service, is not dialled even when everything is listed', (address) => {
    expect(mayDial(address, rangesOf(['0.0.0.0/0', '::/0']))).toBe(false)
  })

  it.each([
    '',
    'localhost',
    '127.1',
    '2130706433',
    '0x7f.1',
    '0177.0.0.1',
    '127.0.0.1 ',
    '127.0.0.1\0',
    '[::1]',
    'fe80::1%lo',
    '1.2.3.4.5',
    '256.1.1.1',
  ])('%j is no address, and is not dialled', (address) => {
    expect(mayDial(address, rangesOf(['0.0.0.0/0', '::/0']))).toBe(false)
  })

  it('may be dialled where its range is listed, and its neighbours may not', () => {
    const listed = rangesOf(['10.1.0.0/16', 'fd12::/32', '127.0.0.1/32', '::1/128'])
    for (const address of ['10.1.255.255', 'fd12::5', '127.0.0.1', '::1', '::ffff:10.1.2.3'])
      expect(mayDial(address, listed)).toBe(true)
    for (const address of ['10.2.0.0', 'fd13::5', '127.0.0.2', '192.168.0.1'])
      expect(mayDial(address, listed)).toBe(false)
  })

  it('of this machine is not dialled, whatever kind it is', () => {
    for (const addresses of Object.values(networkInterfaces()))
      for (const { address } of addresses ?? []) expect(mayDial(address, none)).toBe(false)
  })

  it('is loopback only in 127.0.0.0/8 and ::1', () => {
    for (const address of ['127.0.0.1', '127.9.9.9', '::1']) expect(isLoopback(address)).toBe(true)
    for (const address of ['128.0.0.1', '0.0.0.0', '::', '10.0.0.1', 'localhost', ''])
      expect(isLoopback(address)).toBe(false)
  })
})

describe('a list of ranges', () => {
  it.each([
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/08',
    '10.0.0.0/8/8',
    'fd00::/129',
    'host/8',
    '/8',
    '10.0.0/8',
    '',
    '10.0.0.0/8 ',
  ])('refuses %j', (range) => {
    expect(() => rangesOf([range])).toThrow(RangeError)
  })
})
