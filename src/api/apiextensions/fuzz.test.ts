import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '../../base/errors.ts';
import { compile } from '../cel/environment.ts';
import { Budget, CelBudgetError } from '../cel/evaluator.ts';
import { CelSyntaxError } from '../cel/lexer.ts';
import { CelError, fromJson, toJson } from '../cel/values.ts';
import { validateDefinition } from './definition-validation.ts';
import { compilePattern } from './patterns.ts';
import { pruneUnknown, withDefaults } from './schema-fields.ts';
import { ruleProblems } from './schema-rules.ts';
import { duplicateItems, validateSchema } from './schema-validation.ts';
import { compilePath } from './simple-path.ts';
import { structuralProblems } from './structural-check.ts';
import { compileSchema } from './structural-schema.ts';
import type { CustomResourceDefinition, JSONSchemaProps } from './v1.gen.ts';

// biome-ignore lint/suspicious/noExplicitAny: anything may come in
type Any = any;

const runs = { numRuns: 400 };
const name = fc.oneof(
  fc.constantFrom('a', 'b', 'spec', 'metadata', '__proto__', 'constructor', 'toString', 'kind'),
  fc.string(),
);
const json: fc.Arbitrary<unknown> = fc.letrec(tie => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom<unknown>(null, true, false, 0, 1, -1, 1.5, 1e308, '', 'a', '2024-01-01T00:00:00Z'),
    fc.string(),
    fc.double(),
    fc.array(tie('value'), { maxLength: 4 }),
    // As JSON.parse makes them: `__proto__` is a field.
    fc.array(fc.tuple(name, tie('value')), { maxLength: 5 }).map(entries => {
      const object = {};
      for (const [key, value] of entries)
        Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
      return object;
    }),
  ),
})).value;

const schema: fc.Arbitrary<Any> = fc.letrec<Any>(tie => ({
  node: fc.oneof(
    { depthSize: 'small' },
    fc.record({ type: fc.constantFrom('string', 'integer', 'number', 'boolean', 'null', 'what') }),
    fc.record(
      {
        type: fc.constantFrom('object', 'array', 'string', undefined),
        properties: fc.dictionary(name, tie('node'), { maxKeys: 4 }),
        items: tie('node'),
        additionalProperties: fc.oneof(tie('node'), fc.boolean()),
        required: fc.array(name, { maxLength: 3 }),
        default: json,
        nullable: fc.boolean(),
        pattern: fc.string(),
        enum: fc.array(json, { maxLength: 3 }),
        maximum: fc.double(),
        minLength: fc.nat(),
        format: fc.constantFrom('date-time', 'ipv4', 'uuid', 'duration', 'x'),
        anyOf: fc.array(tie('node'), { maxLength: 3 }),
        oneOf: fc.array(tie('node'), { maxLength: 3 }),
        not: tie('node'),
        'x-kubernetes-preserve-unknown-fields': fc.boolean(),
        'x-kubernetes-int-or-string': fc.boolean(),
        'x-kubernetes-embedded-resource': fc.boolean(),
        'x-kubernetes-list-type': fc.constantFrom('set', 'map', 'atomic', 'x'),
        'x-kubernetes-list-map-keys': fc.array(name, { maxLength: 2 }),
        'x-kubernetes-validations': fc.array(
          fc.record({
            rule: fc.oneof(fc.string(), fc.constantFrom('self == oldSelf', 'has(self.a)', 'self.size() > 1')),
          }),
          { maxLength: 2 },
        ),
      },
      { requiredKeys: [] },
    ),
  ),
})).node;

test('no schema and no object breaks a walk', () => {
  fc.assert(
    fc.property(schema, json, json, (source: JSONSchemaProps, object, old) => {
      structuralProblems(source, 'schema');
      const node = compileSchema(source);
      const copy = JSON.stringify(object);
      if (typeof object === 'object' && object !== null && !Array.isArray(object)) {
        const shown = withDefaults(node, pruneUnknown(node, object));
        validateSchema(source, shown);
        duplicateItems(node, shown);
        if (structuralProblems(source, 'schema').length === 0) ruleProblems(node, shown, old);
      }
      assert.equal(JSON.stringify(object), copy, 'objects are not changed');
      assert.equal(({} as Any).polluted, undefined);
    }),
    runs,
  );
});

test('defaulting and pruning come to rest', () => {
  fc.assert(
    fc.property(schema, json, (source: JSONSchemaProps, object) => {
      if (typeof object !== 'object' || object === null || Array.isArray(object)) return;
      if (structuralProblems(source, 'schema').length > 0) return;
      const node = compileSchema(source);
      const once = withDefaults(node, pruneUnknown(node, object));
      const twice = withDefaults(node, pruneUnknown(node, once));
      assert.deepEqual(JSON.stringify(twice), JSON.stringify(once));
    }),
    runs,
  );
});

test('no definition breaks validation', () => {
  fc.assert(
    fc.property(schema, json, (source, junk) => {
      validateDefinition({
        metadata: { name: 'x' },
        spec: {
          group: 'a.b',
          scope: 'Cluster',
          names: { plural: 'x', kind: 'X' },
          versions: [
            {
              name: 'v1',
              served: true,
              storage: true,
              schema: { openAPIV3Schema: source },
              selectableFields: [{ jsonPath: JSON.stringify(junk) }],
              additionalPrinterColumns: [{ name: 'a', type: 'string', jsonPath: JSON.stringify(junk) }],
            },
          ],
        },
      } as unknown as CustomResourceDefinition);
    }),
    runs,
  );
});

const PIECES = [
  'self',
  '.',
  'a',
  '(',
  ')',
  '[',
  ']',
  '{',
  '}',
  ',',
  ':',
  '?',
  '!',
  '-',
  '+',
  '*',
  '/',
  '%',
  '==',
  '<',
  '&&',
  '||',
  'in',
  ' ',
  '1',
  '2u',
  '1.5',
  "'x'",
  'b"y"',
  'r"\\"',
  'has(',
  'all(',
  'map(x, x',
  'size(',
  'true',
  'null',
  '.?',
  '[?',
  '`a b`',
  'cel.bind(',
  'optional.of(',
  '9223372036854775808',
  '.format(',
  '"%d"',
  'Object{',
  'matches(',
];
const expression = fc.oneof(
  fc.string(),
  fc.array(fc.constantFrom(...PIECES), { maxLength: 24 }).map(parts => parts.join('')),
);

test('no expression does anything but fail with an error of its own', () => {
  fc.assert(
    fc.property(expression, json, (source, self) => {
      try {
        const value = compile(source)(
          variable => (variable === 'self' ? fromJson(self) : undefined),
          new Budget(10_000),
        );
        toJson(value);
      } catch (error) {
        const known =
          error instanceof CelError ||
          error instanceof CelSyntaxError ||
          error instanceof CelBudgetError ||
          error instanceof ApiError;
        assert.ok(known, `${source}: ${(error as Error).stack}`);
      }
    }),
    { numRuns: 3000 },
  );
});

test('no pattern and no path breaks', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), json, (text, other, object) => {
      compilePattern(text)?.test(other);
      compilePath(text)?.(object);
      compilePath(`.${text}`)?.(object);
    }),
    { numRuns: 1000 },
  );
});

test('depth is refused before it can exhaust the stack', () => {
  let deep: Any = { type: 'string' };
  for (let level = 0; level < 5000; level++) deep = { type: 'object', properties: { a: deep } };
  assert.match(structuralProblems(deep, 'schema')[0]!.message, /levels deep/);
});
