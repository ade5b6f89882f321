import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCbor } from '../cbor/decoder.ts';
import { encodeCbor } from '../cbor/encoder.ts';
import type { KubeObject } from '../meta.ts';
import { builtinResources } from '../resources.ts';
import { type BuiltinField, groupVersionOfType, hasType, isKind, typeNames, typeSchema } from '../schema-registry.ts';
import { normalize } from '../structural.ts';
import { decodeProtobuf } from './decoder.ts';
import { encodeProtobuf } from './encoder.ts';

/** Values by the schema, made from one number each, so that a failure shrinks to it. */
class Maker {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
  object(type: string, depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    for (const field of typeSchema(type).fields) {
      if ((field.number === 0 && field.name !== '') || depth > 6) continue;
      if (field.name === '') Object.assign(object, this.object(field.type, depth));
      else if (field.name === 'metadata' || this.below(depth > 4 ? 9 : 3) === 0)
        object[field.name] = this.#field(type, field, depth);
    }
    return object;
  }
  #field(owner: string, { name, type }: BuiltinField, depth: number): unknown {
    if (owner === 'apiextensions.v1.JSONSchemaProps') {
      const schema = () => this.object(owner, depth + 2);
      if (name === 'items') return this.pick([schema, () => [schema(), schema()]])();
      if (name === 'additionalItems' || name === 'additionalProperties') return this.pick([schema, () => true])();
      if (name === 'dependencies') return { a: schema(), b: ['x', 'y'] };
    }
    return this.#value(type, depth);
  }
  /** No empty lists and maps: protobuf has none, and Go writes null for them. */
  #value(type: string, depth: number): unknown {
    if (type.startsWith('[]'))
      return Array.from({ length: 1 + this.below(2) }, () => this.#value(type.slice(2), depth));
    if (type.startsWith('map[string]'))
      return Object.fromEntries(
        Array.from({ length: 1 + this.below(2) }, () => [this.#text() || 'k', this.#value(type.slice(11), depth)]),
      );
    if (hasType(type)) return this.object(type, depth + 1);
    switch (type) {
      case 'string':
        return this.#text();
      case 'bool':
        return this.below(2) === 1;
      case 'int32':
        return this.pick([0, 1, -1, 127, 128, 2 ** 31 - 1, -(2 ** 31)]);
      case 'int64':
        return this.pick([0, 1, -1, 300, 2 ** 31, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER, -(2 ** 45)]);
      case 'double':
        return this.pick([0, 1.5, -3, 1e300, 0.1]);
      case 'bytes':
        return Buffer.from(this.#text()).toString('base64');
      case 'time':
        return this.pick(['2026-01-02T03:04:05Z', '1969-12-31T23:59:59Z', '2126-11-30T00:00:00Z']);
      case 'microtime':
        return this.pick(['2026-01-02T03:04:05.000001Z', '2026-01-02T03:04:05.999999Z']);
      case 'duration':
        return this.pick(['1h0m0s', '2m0s', '1.5s', '5ms', '0s']);
      case 'quantity':
        return this.pick(['100m', '1Gi', '0', '12', '1500k']);
      case 'intOrString':
        return this.pick<unknown>([0, 80, 'http', '25%', '']);
      case 'raw':
        return { kind: 'X', apiVersion: 'x/v1', a: [1, null, 'ü', { b: true }] };
      case 'fieldsV1':
        return { 'f:metadata': { 'f:labels': { '.': {}, 'f:a': {} } } };
      case 'json':
        return this.pick<unknown>([1, 'x', { a: [] }, [true], false]);
      default:
        throw new Error(type);
    }
  }
  #text(): string {
    return this.pick(['', 'a', 'name-1', 'äöü', '€ and 𝒳', 'x'.repeat(200), '"\\\n', '__proto__']);
  }
}

const types = [...new Set(builtinResources.map(info => info.type)), ...typeNames().filter(isKind)];

function made(type: string, seed: number): KubeObject {
  const [group, version] = groupVersionOfType(type);
  const apiVersion = type.startsWith('meta.v1') ? 'v1' : group ? `${group}/${version}` : version;
  return { apiVersion, kind: type.slice(type.lastIndexOf('.') + 1), ...new Maker(seed).object(type, 0) } as KubeObject;
}

test('every kind comes out of protobuf as it went in', () => {
  for (const type of types)
    fc.assert(
      fc.property(fc.nat(), seed => {
        const object = made(type, seed);
        const back = decodeProtobuf(encodeProtobuf(object));
        assert.deepEqual(normalize(type, back), normalize(type, object));
      }),
      { numRuns: 40 },
    );
});

test('every kind comes out of CBOR as it went in', () => {
  for (const type of types) {
    const object = made(type, type.length * 7919);
    assert.deepEqual(decodeCbor(encodeCbor(object)), JSON.parse(JSON.stringify(object)));
  }
});

test('broken bytes never do anything but a bad request', () => {
  const kinds = ['core.v1.Pod', 'apiextensions.v1.CustomResourceDefinition', 'rbac.v1.ClusterRole'];
  fc.assert(
    fc.property(fc.constantFrom(...kinds), fc.nat(), fc.array(fc.tuple(fc.nat(), fc.nat(255))), (type, seed, flips) => {
      for (const [encode, decode] of [
        [encodeProtobuf, decodeProtobuf],
        [encodeCbor, decodeCbor],
      ] as const) {
        const bytes = encode(made(type, seed));
        for (const [at, value] of flips) bytes[at % bytes.length] = value;
        try {
          decode(bytes);
        } catch (error) {
          assert.equal((error as { code?: number }).code, 400, (error as Error).stack!);
        }
      }
    }),
    { numRuns: 150 },
  );
});
