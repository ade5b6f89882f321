import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Errors } from '../machinery/validation.ts';
import { checkSelectors } from './device-selectors.ts';

function findings(expression: string): string[] {
  const errors: Errors = [];
  checkSelectors(errors, 's', [{ cel: { expression } }]);
  return errors.map(({ field, message }) => `${field}: ${message}`);
}

test('rules that drivers recommend', () => {
  for (const expression of [
    'true',
    'device.driver == "gpu.example.com"',
    'device.allowMultipleAllocations',
    'device.attributes["gpu.example.com"].healthy',
    "device.attributes['gpu.example.com'].productName.lowerAscii().matches('^.*a100.*$')",
    'device.attributes["gpu.example.com"].index < 4 && device.attributes["gpu.example.com"].type == "gpu"',
    'device.attributes["gpu.example.com"].driverVersion.compareTo(semver("550.1.0")) >= 0',
    'device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) > 0',
    'device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("10Gi"))',
    'has(device.attributes["gpu.example.com"].model) && "gpu.example.com" in device.capacity',
    'cel.bind(gpu, device.attributes["gpu.example.com"], gpu.one && gpu.two)',
    "device.attributes['gpu.example.com'].?c.orValue(false)",
    "device.driver.split('.').exists(part, part == 'gpu')",
  ])
    assert.deepEqual(findings(expression), [], expression);
});

test('rules that cannot work', () => {
  const cases: [expression: string, problem: string][] = [
    ['1', 'must evaluate to bool or the unknown type, not int'],
    ['device.drivr == "x"', "undefined field 'drivr'"],
    ['gpu.driver == "x"', "undeclared reference to 'gpu' (in container '')"],
    ['device.driver == 1', "found no matching overload for '_==_' applied to '(string, int)'"],
    ['device.capacity["a.b"].memory.startsWith("1")', "found no matching overload for 'startsWith' applied to"],
  ];
  for (const [expression, problem] of cases) {
    const [found = '', ...others] = findings(expression);
    assert.deepEqual(others, []);
    assert.match(found, /^s\[0\]\.cel\.expression: Invalid value: /);
    assert.ok(found.includes(problem), found);
  }
});

test('rules that are too expensive', () => {
  const ten = '[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]';
  const nested = (depth: number): string => (depth === 0 ? 'true' : `${ten}.all(x${depth}, ${nested(depth - 1)})`);
  assert.deepEqual(findings(nested(4)), []);
  const refused = ['s[0].cel.expression: Forbidden: too complex, exceeds cost limit'];
  assert.deepEqual(findings(nested(6)), refused);
  const names = (inner: string): string => `device.attributes["a.b"].all(n, ${inner})`;
  assert.deepEqual(findings(names('n.startsWith("x")')), []);
  assert.deepEqual(findings([...'abcd'].reduce(inner => names(inner), 'true')), refused);
});

test('too many, too long, none', () => {
  const check = (...selectors: object[]): string[] => {
    const errors: Errors = [];
    checkSelectors(errors, 's', selectors as never);
    return errors.map(({ field, message }) => `${field}: ${message}`);
  };
  assert.deepEqual(check(...Array.from({ length: 33 }, () => ({}))), ['s: Too many: 33: must have at most 32 items']);
  assert.deepEqual(check({}), ['s[0].cel: Required value']);
  assert.deepEqual(check({ cel: { expression: `true${' '.repeat(10 * 1024)}` } }), [
    's[0].cel.expression: Too long: may not be more than 10240 bytes',
  ]);
});
