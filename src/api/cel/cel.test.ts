import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { checkExpression, DYN, listOf, plain, type Type, typeText } from './checker.ts';
import { compile, kubernetesLibrary } from './environment.ts';
import { Budget, CelBudgetError } from './evaluator.ts';
import { parse } from './parser.ts';
import { fromJson, toJson, type Value } from './values.ts';

function run(source: string, variables: Record<string, unknown> = {}, limit = 1_000_000): unknown {
  const scope = (name: string): Value | undefined =>
    Object.hasOwn(variables, name) ? fromJson(variables[name]) : undefined;
  return toJson(compile(source)(scope, new Budget(limit)));
}

const self = {
  spec: {
    replicas: 3,
    max: 5,
    name: 'web-1',
    items: [
      { name: 'a', port: 1 },
      { name: 'b', port: 2 },
    ],
    labels: { 'a.b/c': 'd' },
  },
};

const TRUE = [
  '1 + 2 * 3 == 7',
  '-2 - -3 == 1',
  '7 / 2 == 3 && 7 % 2 == 1 && -7 / 2 == -3',
  '1.5 + 1.5 == 3.0 && 3.0 == 3',
  '0x1F == 31 && 5u == 5',
  "'a' + 'b' == \"ab\" && r'\\d' == '\\\\d'",
  "'''x''' == 'x' && b'ab' == bytes('ab')",
  'true || 1 / 0 == 1',
  '!(false && 1 / 0 == 1)',
  '(1 / 0 == 1) || true',
  '[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x == 2)',
  '[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2].map(x, x * 2) == [2, 4] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]',
  "{'a': 1}.a == 1 && {'a': 1}['a'] == 1 && 'a' in {'a': 1} && !('b' in {'a': 1})",
  '2 in [1, 2] && !(3 in [1, 2])',
  'self.spec.replicas <= self.spec.max',
  "self.spec.items.all(i, i.port > 0) && self.spec.items[1].name == 'b'",
  "has(self.spec.name) && !has(self.spec.other) && self.spec.labels['a.b/c'] == 'd'",
  "self.?spec.?other.orValue('none') == 'none' && self.?spec.name.hasValue()",
  'optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().hasValue()',
  '[1, ?optional.none(), 2] == [1, 2] && self.spec.items[?5].hasValue() == false',
  "size('äb') == 2 && 'abc'.size() == 3 && size([1]) == 1",
  "'web-1'.matches('^[a-z]+-[0-9]$') && 'abc'.startsWith('ab') && 'abc'.endsWith('c') && 'abc'.contains('b')",
  "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024 && timestamp('2024-01-02T03:04:05Z') < timestamp('2025-01-02T03:04:05Z')",
  "duration('1h30m').getMinutes() == 90 && duration('1h') > duration('59m') && timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
  "type(1) == int && type('a') == string && type(null) == null_type && type([]) == list",
  "int('12') == 12 && string(12) == '12' && double('1.5') == 1.5 && bool('true')",
  "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'aXb'.lowerAscii() == 'axb' && ' a '.trim() == 'a'",
  "'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'aaa'.replace('a', 'b', 2) == 'bba'",
  "'%s is %d and %.2f'.format(['x', 3, 1.5]) == 'x is 3 and 1.50'",
  '[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2, 2].indexOf(2) == 1',
  'sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])',
  "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
  "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('1.5') && !isQuantity('x') && quantity('50k').asInteger() == 50000 && quantity('1').add(quantity('1')).compareTo(quantity('2')) == 0",
  "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('1.2.3') && ip('127.0.0.1').isLoopback() && ip.isCanonical('::1')",
  "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && isCIDR('::/0')",
  "url('https://example.com:80/path?a=b').getHost() == 'example.com:80' && url('https://example.com/x').getHostname() == 'example.com' && isURL('/a') && !isURL('a b') && url('https://e.com/p?k=v').getQuery() == {'k': ['v']}",
  "semver('1.2.3').major() == 1 && semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0-rc.1') && !isSemver('v1')",
  "!format.dns1123Label().validate('abc').hasValue() && format.dns1123Label().validate('A_').hasValue() && format.named('uuid').hasValue()",
  "[1, 2].all(i, v, i < v) && [1, 2].transformList(i, v, i + v) == [1, 3] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
  'cel.bind(x, 2, x * x == 4) && [[1], [2]].all(x, x.all(y, y > 0))',
  "(true ? 'a' : 'b') == 'a' && null == null && dyn(1) != 'a'",
  "'\\u00e4' == 'ä' && '\\n'.size() == 1 && '\\x41' == 'A'",
  '9223372036854775807 > 0 && -9223372036854775808 < 0',
];

test('what is true is true', () => {
  for (const source of TRUE) assert.equal(run(source, { self }), true, source);
});

test('what fails says why', () => {
  const fails = (source: string, message: RegExp) => assert.throws(() => run(source, { self }), message, source);
  fails('1 / 0 == 1', /divide by zero/);
  fails('self.nothing', /no such key: nothing/);
  fails('other', /no such attribute\(s\): other/);
  fails("1 + 'a'", /no such overload/);
  fails('[1][5]', /index out of bounds: 5/);
  fails('9223372036854775807 + 1', /integer overflow/);
  fails("'a'.matches('(')", /error parsing regexp/);
  fails('1 +', /ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'/);
  fails('a b', /mismatched input 'b'/);
  fails("'abc", /unterminated string/);
  fails('has(a)', /invalid argument to has\(\) macro/);
  fails('if', /mismatched input 'if'/);
});

test('costs are bounded, and so is depth', () => {
  const many = Array.from({ length: 1000 }, (_, index) => index);
  assert.throws(
    () => run('self.all(x, self.all(y, self.all(z, x + y + z >= 0)))', { self: many }),
    (error: unknown) => error instanceof CelBudgetError,
  );
  assert.throws(() => parse(`${'('.repeat(1000)}1${')'.repeat(1000)}`), /recursion limit/);
  assert.throws(() => parse(`${'-'.repeat(5000)}a`), /recursion limit/);
  assert.throws(() => parse(`${'['.repeat(5000)}`), /recursion limit/);
  assert.throws(() => parse(`${'1+'.repeat(5000)}1`), /too long/);
  const started = performance.now();
  const text = `${'a'.repeat(60)}!`;
  for (const pattern of ['^(a+)+$', '^([a-z]{1,9})+$', '^(\\\\p{L}+)+$']) {
    try {
      run(`self.matches('${pattern}')`, { self: text });
    } catch {
      // Refused after its time.
    }
  }
  assert.ok(performance.now() - started < 5000, 'backtracking is bounded');
});

const ITEM: Type = {
  is: 'object',
  field: name => (name === 'name' ? plain('string') : name === 'port' ? plain('int') : undefined),
};
const SPEC: Type = {
  is: 'object',
  field: name =>
    ({
      replicas: plain('int'),
      name: plain('string'),
      items: listOf(ITEM),
      free: DYN,
      sized: { is: 'dyn' as const, max: 64 },
      when: plain('timestamp'),
    })[name],
};
const check = (source: string): string =>
  typeText(checkExpression(source, kubernetesLibrary(), name => (name === 'self' ? SPEC : undefined)));

test('types are known where they can be', () => {
  const types: Readonly<Record<string, string>> = {
    'self.replicas > 1 && self.items.all(i, i.port > 0)': 'bool',
    'self.items.map(i, i.name)': 'list(string)',
    "self.?name.orValue('x')": 'string',
    'self.?items[?0].name': 'optional_type(string)',
    'self.free.anything[3].at.all': 'dyn',
    "self.name.split(',').size()": 'int',
    "quantity(self.name).add(quantity('1')).isGreaterThan(quantity('2'))": 'bool',
    "duration('1h') < duration('2h') ? self.replicas : 3": 'int',
    'self.when.getFullYear() + 1': 'int',
    'type(self.name) == string': 'bool',
    'cel.bind(n, self.items.size(), n * n)': 'int',
    'optional.of(1).optMap(x, string(x)).value()': 'string',
    'self.items.map(i, i.port).sum() + self.items.map(i, i.port).max()': 'int',
    "self.items.exists_one(i, i.name == self.name) || self.name == ''": 'bool',
  };
  for (const [source, type] of Object.entries(types)) assert.equal(check(source), type, source);
  // Everything that runs is not refused.
  for (const source of TRUE) checkExpression(source, kubernetesLibrary(), name => (name === 'self' ? DYN : undefined));
});

test('what cannot work is found before it runs', () => {
  const fails = (source: string, message: RegExp) => assert.throws(() => check(source), message, source);
  fails('self.replica > 1', /<input>:1:5: undefined field 'replica'\n \| self\.replica > 1\n \| \.\.\.\.\^/);
  fails('self.items.all(i, i.ports > 0)', /undefined field 'ports'/);
  fails('other.x', /undeclared reference to 'other' \(in container ''\)/);
  fails("self.replicas == 'a'", /found no matching overload for '_==_' applied to '\(int, string\)'/);
  fails("self.replicas + 'a'", /found no matching overload for '_\+_' applied to '\(int, string\)'/);
  fails('self.name.startsWith(1)', /found no matching overload for 'startsWith' applied to 'string\.\(int\)'/);
  fails('self.name.frobnicate()', /undeclared reference to 'frobnicate'/);
  fails('self.replicas.all(x, true)', /expression of type 'int' cannot be range of a comprehension/);
  fails('self.sized.all(x, true)', /expression of type 'any' cannot be range of a comprehension/);
  fails('self.name.first', /type 'string' does not support field selection/);
  fails('self.items.all(i, i.port)', /expected type 'bool' but found 'int'/);
});
