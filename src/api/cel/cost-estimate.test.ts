import assert from 'node:assert/strict';
import test from 'node:test';
import { ruleDefinitionProblems } from '../apiextensions/schema-rules.ts';
import type { JSONSchemaProps } from '../apiextensions/v1.gen.ts';
import { type Declarations, listOf, plain, type Type } from './checker.ts';
import { estimateCost } from './cost-estimate.ts';
import { compile, kubernetesLibrary } from './environment.ts';
import { Budget } from './evaluator.ts';
import { fromJson } from './values.ts';

const name: Type = { ...plain('string'), max: 100 } as Type;
const variables: Readonly<Record<string, Type>> = {
  s: name,
  list: { ...listOf(name), max: 10 } as Type,
  loose: listOf(plain('string')),
};
const declared: Declarations = one => variables[one];
const cost = (source: string): number => estimateCost(source, kubernetesLibrary(), declared);

test('by the size of what is gone through', () => {
  assert.equal(cost('true'), 0);
  assert.equal(cost('s == "ab"'), 2);
  assert.equal(cost('s.startsWith("a")'), 2);
  assert.equal(cost('s.matches("^[a-z]+$")'), 1 + 11 * 2);
  assert.equal(cost('"a" in list'), 1 + 10);
  // Ten turns, each with a comparison.
  assert.ok(cost('list.all(x, x == "a")') > 10 * cost('s == "a"'));
  assert.ok(cost('list.all(x, list.all(y, x == y))') > 10 * cost('list.all(x, x == "a")'));
  assert.ok(cost('list.all(x, x == "a") ? true : list.all(x, list.all(y, x == y))') < 10_000);
  // What is not known counts as small.
  assert.ok(cost('loose.all(x, x == "a")') < 20);
});

test('functions of the libraries cost what upstream says', () => {
  for (const [source, wanted] of [
    ['s.lowerAscii()', 1 + 10],
    ['s.substring(1).trim()', 1 + 10 + 10],
    ['s.replace("a", "bc")', 1 + 20],
    // Every letter may have become two.
    ['s.replace("a", "bc").lowerAscii()', 1 + 20 + 20],
    ['s.replace("", "bc").lowerAscii()', 1 + 20 + 31],
    ['s.split(",")', 1 + 20],
    ['s.find("^[a-z]+$")', 1 + 11 * 2],
    ['s.findAll("[a-z]")', 1 + 11 * 2],
    ['list.join(",")', 1 + 101],
    ['list.isSorted()', 1 + 10 * (1 + 10)],
    ['list.indexOf("a")', 1 + 10 * (1 + 10)],
    ['s.indexOf("a")', 1 + 10],
    ['s.contains("abc")', 1 + 10],
    ['s.startsWith(s)', 1 + 1 + 10],
    ['s + s', 2 + 20],
    ['s < s', 2 + 10],
    ['url(s)', 1 + 10],
    ['url(s).getHost()', 1 + 10 + 1],
    // Upstream takes parsers for methods, and so charges nothing for the text.
    ['quantity(s)', 1 + 1],
    ['quantity(s).isGreaterThan(quantity("1"))', 1 + 1 + 1 + 1],
    ['ip.isCanonical(s)', 1 + 1],
    ['cidr(s).containsIP(s)', 1 + 1 + 1 + 4 + 10],
    ['cidr(s).containsCIDR("10.0.0.0/8")', 1 + 1 + 4 + 2 + 1 + 1],
    ['semver(s).major()', 1 + 1 + 1],
    ['format.dns1123Label().validate(s)', 1 + 1 + 10 * 32],
    ['"%s".format([s])', 10 + 1 + 1],
    ['sets.contains(list, list)', 2 + 100 + 1],
  ] as const)
    assert.equal(cost(source), wanted, source);
});

test('an expression that runs pays the same', () => {
  const spent = (source: string, values: Record<string, unknown> = {}): number => {
    const budget = new Budget(10_000_000);
    compile(source)(name => (name in values ? fromJson(values[name]) : undefined), budget);
    return 10_000_000 - budget.left;
  };
  const s = 'a'.repeat(100);
  for (const [source, wanted] of [
    ['s.matches("^[a-z]+$")', 1 + 11 * 2],
    ['s.find("^[a-z]+$") == s', 1 + 11 * 2 + 1 + 10],
    ['quantity("1000").sign()', 1 + 1],
    ['ip("192.168.100.200").family()', 2 + 1],
    ['cidr("10.0.0.0/8").containsIP("10.1.2.3")', 1 + 4 + 1],
    ['s.replace("a", "bb")', 1 + 20],
    ['s.indexOf("aa")', 1 + 10],
    ['list.sum()', 1 + 3],
    ['list == list', 2 + 1],
    ['format.dns1123Label().validate(s)', 1 + 1 + 11 * 32],
  ] as const)
    assert.equal(spent(source, { s, list: [1, 2, 3] }), wanted, source);
});

const LIMIT = /exceeds budget by factor of/;
const problems = (schema: JSONSchemaProps): string[] =>
  ruleDefinitionProblems(schema, 'schema').map(one => `${one.field}: ${one.message}`);
const rule = (text: string) => ({ 'x-kubernetes-validations': [{ rule: text }] });

test("a rule over lists without bounds is refused in upstream's words, and accepted with bounds", () => {
  const nested = (bounds: { maxItems?: number }, maxLength?: number): JSONSchemaProps => ({
    type: 'object',
    properties: {
      names: {
        type: 'array',
        ...bounds,
        items: { type: 'string', ...(maxLength ? { maxLength } : {}) },
        ...rule('self.all(a, self.all(b, a == b))'),
      },
    },
  });
  const [found] = problems(nested({}));
  assert.match(found!, /^schema\.properties\[names\]\.x-kubernetes-validations\[0\]\.rule: /);
  assert.match(
    found!,
    /estimated rule cost exceeds budget by factor of more than 100x \(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared\)/,
  );
  assert.deepEqual(problems(nested({ maxItems: 32 }, 64)), []);
  // Cheap by itself, but wherever a list without bounds has it.
  const item: JSONSchemaProps = { type: 'string', ...rule('self.matches("^[a-z]+$")') };
  assert.match(problems({ type: 'object', properties: { list: { type: 'array', items: item } } })[0]!, LIMIT);
  const bounded: JSONSchemaProps = { ...item, maxLength: 64 };
  assert.deepEqual(
    problems({ type: 'object', properties: { list: { type: 'array', maxItems: 100, items: bounded } } }),
    [],
  );
});

test('rules that are bearable one by one may be too much together', () => {
  const one = (index: number): [string, JSONSchemaProps] => [
    `field${index}`,
    { type: 'string', ...rule('self.matches("^[a-z]+[0-9]*$")') },
  ];
  const schema = (count: number): JSONSchemaProps => ({
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: count }, (_, index) => one(index))),
  });
  assert.deepEqual(problems(schema(10)), []);
  const many = problems(schema(120));
  assert.equal(many.length, 5);
  assert.match(many[0]!, /contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema/);
  assert.match(
    many[4]!,
    /^schema: .*x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds/,
  );
});
