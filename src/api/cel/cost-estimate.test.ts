import assert from 'node:assert/strict';
import test from 'node:test';
import { ruleDefinitionProblems } from '../apiextensions/schema-rules.ts';
import type { JSONSchemaProps } from '../apiextensions/v1.gen.ts';
import { GATEWAY_DEFINITIONS } from '../gateway/definitions.ts';
import { LOAD_BALANCER_DEFINITIONS } from '../loadbalancer/definitions.ts';
import { CLUSTER_POLICY_DEFINITIONS } from '../networkpolicy/definitions.ts';
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
  number: plain('int'),
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
  // What the declarations leave open counts as small.
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

test('folds cost what their expansions do', () => {
  for (const [source, wanted] of [
    ['list.all(x, true)', 1 + 1 + 10 * 3],
    ['list.exists(x, true)', 1 + 1 + 10 * 4],
    ['list.exists_one(x, true)', 1 + 2 + 10 * 2],
    ['list.map(x, 1)', 1 + 11 + 10 * 12],
    ['list.filter(x, true)', 1 + 11 + 10 * 13],
    // As many turns as the list that was made has entries at most.
    ['list.filter(x, true).all(y, true)', 1 + 11 + 10 * 13 + 1 + 10 * 3],
    ['s.split(",").all(x, true)', 1 + 20 + 1 + 100 * 3],
    ['(list + list).all(x, true)', 3 + 1 + 20 * 3],
    ['["a", "b"].all(x, true)', 10 + 1 + 2 * 3],
    ['cel.bind(x, s, x == s)', 10 + 1 + 2 + 10],
  ] as const)
    assert.equal(cost(source), wanted, source);
});

test('what an expression makes has no bound, unless its function gives one', () => {
  const limit = 10_000_000;
  for (const source of [
    'string(number).contains(s)',
    'string(number) == string(number)',
    's.contains(string(number))',
    'url(s).getHost().matches("a")',
    'list.map(x, x + x).join(",") == s.lowerAscii() || list.map(x, x).join("").size() > 3',
    's.split(",").isSorted()',
    'dyn(string(number)).matches("a")',
    'cel.bind(x, string(number), x.matches("a"))',
    '(s == "" ? string(number) : s).matches("a")',
    '(string(number) + "a").matches("a")',
    'optional.of(s).orValue("").matches("a")',
    '"%s".format([s]).matches("a")',
    'quantity(s).asInteger() == 1 && string(quantity(s).asInteger()).lowerAscii() == "1"',
  ])
    assert.ok(cost(source) > 100 * limit, `${source}: ${cost(source)}`);
  for (const source of [
    'string(number) == "1"',
    'string(number).size() > 3',
    'string(number).startsWith("a")',
    'url(s).getHost() == s',
    'list.map(x, x + x).size() == list.size()',
    's.split(",").size() == 3 && s.split(",")[0] == s',
    '(s + s).matches("a") && (s == "" ? s : "a").matches("a")',
    'cel.bind(x, s + "a", x.matches("a"))',
    'string(bytes(s)).matches("a")',
    'strings.quote(s).matches("a")',
    'number == 3 && size(s) < number',
  ])
    assert.ok(cost(source) < 2000, `${source}: ${cost(source)}`);
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

test('a rule that looks through what it makes is refused, whatever is declared', () => {
  const spec = (text: string): JSONSchemaProps => ({
    type: 'object',
    properties: {
      port: { type: 'integer' },
      name: { type: 'string', maxLength: 63 },
      hosts: { type: 'array', maxItems: 16, items: { type: 'string', maxLength: 253 } },
    },
    ...rule(text),
  });
  for (const text of [
    "string(self.port).matches('^80')",
    'self.name.contains(string(self.port))',
    "self.hosts.map(h, h + '.').join(',').contains(self.name)",
  ])
    assert.match(
      problems(spec(text)).join(),
      /estimated rule cost exceeds budget by factor of more than 100x \(try/,
      text,
    );
  for (const text of [
    "string(self.port) == '80'",
    "self.name.split('-').all(part, part.size() > 0 && part.matches('^[a-z]+$'))",
    "self.hosts.filter(h, h.endsWith('.')).size() == 0",
    "self.hosts.join(',').contains(self.name)",
    "(self.name + '.' + self.hosts[0]).matches('^[a-z.]+$')",
  ])
    assert.deepEqual(problems(spec(text)), [], text);
});

test("well-known definitions' rules are taken: the Gateway API's, cluster policies' and ours", () => {
  for (const { metadata, spec } of [
    ...GATEWAY_DEFINITIONS,
    ...CLUSTER_POLICY_DEFINITIONS,
    ...LOAD_BALANCER_DEFINITIONS,
  ])
    for (const { name, schema } of spec.versions)
      assert.deepEqual(problems(schema!.openAPIV3Schema!), [], `${metadata.name} ${name}`);
  // Of the Gateway API's own TLSRoute, which looks through a part of a name a thousand times.
  const hostname = "matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$')";
  const hostnames = (maxLength?: number): JSONSchemaProps => ({
    type: 'array',
    maxItems: 1024,
    items: { type: 'string', ...(maxLength ? { maxLength } : {}) },
    ...rule(`self.all(h, h.contains('*') ? (h.startsWith('*.') && h.substring(2).${hostname}) : true)`),
  });
  const spec = (maxLength?: number): JSONSchemaProps => ({
    type: 'object',
    properties: { hostnames: hostnames(maxLength) },
  });
  assert.deepEqual(problems(spec(253)), []);
  assert.match(problems(spec()).join(), LIMIT);
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
