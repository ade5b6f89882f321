import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Claims } from './claims.ts';
import type { Frontend, ServiceEntry } from './model.ts';

const claim = (
  key: string,
  wants: readonly [Frontend['kind'], address: string][],
  createdAt = '2026-01-01T00:00:00Z',
): ServiceEntry => ({
  key,
  clusterIps: [],
  createdAt,
  frontends: wants.map(([kind, address]) => ({
    kind,
    address,
    family: 4,
    protocol: 'TCP',
    port: 80,
    endpoints: [],
    localEndpoints: undefined,
    masquerade: 'always',
    affinity: undefined,
    whenEmpty: 'reject',
    sourceRanges: undefined,
  })),
});
const has = (claims: Claims, key: string) => claims.granted(key)!.frontends.map(({ address }) => address);

test('a cluster IP cannot be taken by externalIPs, whoever comes first', () => {
  const claims = new Claims();
  const thief = claim('a/thief', [['external-ip', '10.96.0.10']], '2020-01-01T00:00:00Z');
  claims.set('a/thief', thief);
  assert.equal(claims.granted('a/thief'), thief);
  const changed = claims.set('b/dns', claim('b/dns', [['cluster-ip', '10.96.0.10']]));
  assert.deepEqual([...changed], ['a/thief']);
  assert.deepEqual([has(claims, 'a/thief'), has(claims, 'b/dns')], [[], ['10.96.0.10']]);
  assert.match(claims.granted('a/thief')!.refused![0]!.because, /b\/dns/);
  assert.deepEqual([...claims.set('b/dns', undefined)], ['a/thief']);
  assert.equal(claims.granted('a/thief'), thief);
});

test('of equals the older Service has it, also against a name that sorts first', () => {
  const claims = new Claims();
  claims.set('b/old', claim('b/old', [['external-ip', '192.0.2.1']], '2026-01-01T00:00:00Z'));
  claims.set('a/new', claim('a/new', [['external-ip', '192.0.2.1']], '2026-01-02T00:00:00Z'));
  assert.deepEqual([has(claims, 'b/old'), has(claims, 'a/new')], [['192.0.2.1'], []]);
  claims.set('a/balanced', claim('a/balanced', [['load-balancer-ip', '192.0.2.1']], '2026-01-03T00:00:00Z'));
  assert.deepEqual([has(claims, 'b/old'), has(claims, 'a/balanced')], [[], ['192.0.2.1']]);
});

test('whatever the order of changes: each address has one owner, the same one, and who is affected is told', () => {
  const kinds = ['cluster-ip', 'load-balancer-ip', 'external-ip'] as const;
  const wants = fc.array(fc.tuple(fc.constantFrom(...kinds), fc.constantFrom('1', '2', '3')), { maxLength: 3 });
  const change = fc.tuple(fc.constantFrom('a', 'b', 'c', 'd'), fc.option(wants), fc.integer({ min: 1, max: 3 }));
  fc.assert(
    fc.property(fc.array(change, { maxLength: 12 }), changes => {
      const claims = new Claims();
      const state = new Map<string, ServiceEntry>();
      const granted = new Map<string, string>();
      for (const [key, list, day] of changes) {
        const unique = list && [...new Map(list.map(item => [item[1], item])).values()];
        const entry = unique ? claim(key, unique, `2026-01-0${day}T00:00:00Z`) : undefined;
        if (entry) state.set(key, entry);
        else state.delete(key);
        const affected = claims.set(key, entry).add(key);
        for (const [name] of [...state]) {
          const now = JSON.stringify(claims.granted(name));
          if (!affected.has(name)) assert.equal(now, granted.get(name));
          granted.set(name, now);
        }
      }
      const owners = [...state.keys()].flatMap(key => has(claims, key));
      assert.equal(new Set(owners).size, owners.length);
      const fresh = new Claims();
      for (const key of [...state.keys()].sort()) fresh.set(key, state.get(key));
      for (const key of state.keys()) assert.deepEqual(has(claims, key), has(fresh, key));
      const asked = new Set([...state.values()].flatMap(({ frontends }) => frontends.map(({ address }) => address)));
      assert.equal(asked.size, owners.length);
    }),
    { seed: 3, numRuns: 300 },
  );
});
