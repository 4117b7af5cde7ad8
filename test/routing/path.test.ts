import { describe, expect, it } from 'vitest'
import { decodePath, normalizePath, redactPath } from '../../src/routing/path.ts'

describe('the normal form of a path', () => {
  it.each([
    ['/x', '/x'],
    ['/gateway/x', '/x'],
    ['/gatewayx/x', '/gatewayx/x'],
    ['/gateway', '/gateway'],
    ['//gateway//x/', '/x/'],
    ['/./gateway/./x/.', '/x'],
    ['/%67atewa%79/%7E%5f/%2e/x', '/~_/x'],
    ['/a%2Fb%20c%zz%4', '/a%2Fb%20c%zz%4'],
    ['/.', '/'],
    ['/gateway;a=b/x;c;d=e%2Ff/y;', '/x/y'],
    ['/;a/.;b/%2e;c/x', '/x'],
    ['/a%3Bb/x', '/a%3Bb/x'],
  ])('%s is %s', (path, expected) => {
    expect(normalizePath(path, '/gateway')).toBe(expected)
  })
})

describe('a path that holds secrets', () => {
  it.each([
    ['/pipeline/api/webhook/custom/tok/v3', [4], '/pipeline/api/webhook/custom/[redacted]/v3'],
    ['/pipeline/api/webhook/custom/tok/', [4], '/pipeline/api/webhook/custom/[redacted]/'],
    ['/a/b', [], '/a/b'],
    ['/a/b/c', [0, 2], '/[redacted]/b/[redacted]'],
  ])('%s is shown without them', (path, secretSegments, expected) => {
    expect(redactPath(path, secretSegments)).toBe(expected)
  })
})

describe('a path whose escapes are decoded', () => {
  it.each([
    ['/a%2Fb', '/a/b'],
    ['/a%252fb', '/a/b'],
    ['/a%25252Fb', '/a/b'],
    ['/a%%32Fb', '/a/b'],
    // No escape begins with "%5%": the slash behind it must be seen.
    ['/a%255%2Fb', '/a%5/b'],
    ['/a%25a%2Fb', '/a%a/b'],
    ['/a%255xb', '/a%5xb'],
    ['/a%25x5b', '/a%x5b'],
    ['/a%', '/a%'],
    ['/a%5', '/a%5'],
  ])('of %s is %s', (path, decoded) => {
    expect(decodePath(path)).toBe(decoded)
  })
})
