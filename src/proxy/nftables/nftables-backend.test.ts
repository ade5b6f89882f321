import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { formatAddress } from '../../sys/address.ts';
import { createNetns, deleteNetns } from '../../sys/netns.ts';
import { NFPROTO_IPV4, Nfnetlink } from '../../sys/nfnetlink.ts';
import { Nftables } from '../../sys/nftables.ts';
import { contractEntry, proxyBackendContract } from '../contract.ts';
import type { Frontend, ServiceTable } from '../model.ts';
import { endpointData } from './elements.ts';
import { NftablesBackend } from './nftables-backend.ts';
import { TABLE } from './rules.ts';

const root = process.getuid?.() === 0;
let count = 0;

function subject() {
  const namespace = `cox-nft-${process.pid}-${++count}`;
  createNetns(namespace);
  const raw = new Nfnetlink(namespace);
  const make = () =>
    new NftablesBackend({
      namespace,
      nodeIps: ['172.30.0.2', 'fd00::ac1e:2'],
      clusterCidrs: ['10.244.0.0/16', 'fd00:244::/56'],
      log: silentLogger,
    });
  const backend = make();
  return {
    namespace,
    backend,
    restarted: make,
    endpointsOf: (clusterIp: string) => {
      const of = (set: string) =>
        raw
          .elements({ family: NFPROTO_IPV4, table: TABLE }, set)
          .filter(({ key }) => formatAddress(key.subarray(0, 4)) === clusterIp);
      if (of('refused').length > 0) return 'refused' as const;
      const chain = of('services')[0]?.data as { goto: string } | undefined;
      if (!chain) return undefined;
      const modulus = Number(/\d+/.exec(chain.goto)![0]);
      const elements = of('endpoints').filter(({ key }) => Buffer.from(key).readUInt32LE(12) < modulus);
      assert.equal(elements.length, modulus);
      assert.equal(of('endpoints').length, modulus);
      return elements
        .map(({ data }) => `${formatAddress((data as Buffer).subarray(0, 4))}:${(data as Buffer).readUInt16BE(4)}`)
        .sort();
    },
    close: () => {
      backend.close();
      raw.close();
      deleteNetns(namespace);
    },
  };
}

proxyBackendContract('nftables', subject, { skip: !root });

test('damage by others is noticed and repaired; changes of other tables are no damage', { skip: !root }, async () => {
  const { backend, endpointsOf, namespace, close } = subject();
  const entry = contractEntry('a', '10.96.0.1', ['10.0.0.1'], {
    seconds: 600,
    address: '10.96.0.1',
    port: 80,
    memory: 'all',
  });
  const table = new Map([[entry.key, entry]]);
  await backend.apply(table);
  assert.equal(backend.damaged(), false);
  const nftables = new Nftables(namespace);
  nftables.run('add table ip other; add chain ip other x');
  assert.equal(backend.damaged(), false);
  for (const command of [
    `flush chain ip ${TABLE} choose`,
    `flush chain ip ${TABLE} c1-600s`,
    `flush map ip ${TABLE} endpoints`,
    `delete table ip ${TABLE}`,
    'flush ruleset',
  ]) {
    nftables.run(command);
    assert.equal(backend.damaged(), true, command);
    await backend.apply(table);
    await backend.prune(table);
    assert.equal(backend.damaged(), false);
    assert.deepEqual(endpointsOf('10.96.0.1'), ['10.0.0.1:8080']);
  }
  close();
});

test('another backend keeps whom the kernel remembers, but not with endpoints that went meanwhile', {
  skip: !root,
}, async () => {
  const { backend, namespace, restarted, close } = subject();
  const raw = new Nfnetlink(namespace);
  const ref = { family: NFPROTO_IPV4, table: TABLE };
  const table = (ips: readonly string[]) => {
    const entry = contractEntry('a', '10.96.0.1', ips, { seconds: 600, address: '10.96.0.1', port: 80, memory: 'all' });
    return new Map([[entry.key, entry]]);
  };
  const clients = () => raw.elements(ref, 'affinity').map(({ key }) => formatAddress(key.subarray(0, 4)));
  const first = table(['10.0.0.1', '10.0.0.2']);
  await backend.apply(first);
  const client = (last: number, endpoint: string) => ({
    set: 'affinity',
    key: Buffer.from([10, 0, 9, last, 10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]),
    data: endpointData({ ip: endpoint, port: 8080 }),
  });
  raw.change(ref, { remove: [], add: [client(1, '10.0.0.1'), client(2, '10.0.0.2')] });
  const next = restarted();
  await next.apply(first);
  await next.prune(first);
  assert.deepEqual(clients().sort(), ['10.0.9.1', '10.0.9.2']);
  const last = restarted();
  await last.apply(table(['10.0.0.2']));
  assert.deepEqual(clients(), ['10.0.9.2']);
  for (const other of [next, last, raw]) other.close();
  close();
});

test('what nft shows is readable, whatever the shapes of Services', { skip: !root }, async () => {
  for (const family of [4, 6] as const) {
    const { backend, namespace, close } = subject();
    const ip = (text: string) => (family === 4 ? text : `fd00::${text}`);
    const table = new Map(
      [0, 1, 2, 3].map(i => {
        const entry = contractEntry(
          `s${i}`,
          ip(`10.96.0.${i}`),
          [ip('10.0.0.1'), ip('10.0.0.2')],
          i > 1 ? { seconds: 60, address: ip(`10.96.0.${i}`), port: 80, memory: 'all' } : undefined,
        );
        const [frontend] = entry.frontends;
        const local = i % 2 === 1 ? [frontend!.endpoints[0]!] : undefined;
        const made: Frontend = {
          ...frontend!,
          family,
          localEndpoints: local,
          masquerade: 'always',
          sourceRanges: [family === 4 ? '10.0.0.0/9' : 'fd00::/9'],
        };
        return [
          entry.key,
          { ...entry, frontends: [made, { ...made, kind: 'node-port', address: undefined, port: 30_000 + i }] },
        ];
      }),
    );
    await backend.apply(table as ServiceTable);
    // In a process of its own: on shapes it does not know, it aborts.
    const word = family === 4 ? 'ip' : 'ip6';
    const listed = execFileSync('ip', ['netns', 'exec', namespace, 'nft', 'list', 'table', word, TABLE], {
      encoding: 'utf8',
    });
    assert.match(listed, /numgen random mod 2/);
    assert.match(listed, /update @affinity { .* timeout 1m/);
    assert.match(listed, /update @affinity-local { /);
    await backend.prune(new Map());
    assert.equal(backend.damaged(), false);
    close();
  }
});

test('chains that nothing goes to are removed', { skip: !root }, async () => {
  const { backend, namespace, endpointsOf, close } = subject();
  const raw = new Nfnetlink(namespace);
  const entry = (count: number) =>
    contractEntry(
      'a',
      '10.96.0.1',
      Array.from({ length: count }, (_, i) => `10.0.${i >> 8}.${i & 255}`),
    );
  let table: ServiceTable = new Map();
  await backend.apply(table);
  const count = () => raw.chains({ family: NFPROTO_IPV4, table: TABLE }).length;
  const before = count();
  for (let i = 1; i <= 150; i++) {
    const next = new Map([['default/a', entry(i)]]);
    await backend.apply(next, table);
    table = next;
  }
  assert.ok(count() - before < 100, `${count() - before} chains`);
  assert.equal(endpointsOf('10.96.0.1')!.length, 150);
  await backend.apply(table);
  await backend.prune(table);
  assert.equal(count() - before, 1);
  raw.close();
  close();
});
