import { describe, expect, it } from 'vitest'
import { normalizePath, redactPath } from '../../src/routing/path.ts'

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
