import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { formatAddress } from '../../sys/address.ts';
import { createNetns, deleteNetns } from '../../sys/netns.ts';
import { NFPROTO_IPV4, Nfnetlink } from '../../sys/nfnetlink.ts';
import { Nftables } from '../../sys/nftables.ts';
import { contractEntry, proxyBackendContract } from '../contract.ts';
import { NftablesBackend } from './nftables-backend.ts';
import { TABLE } from './rules.ts';

const root = process.getuid?.() === 0;
let count = 0;

function subject() {
  const namespace = `cox-nft-${process.pid}-${++count}`;
  createNetns(namespace);
  const raw = new Nfnetlink(namespace);
  const make = () =>
    new NftablesBackend({ namespace, nodeIps: ['172.30.0.2'], clusterCidrs: ['10.244.0.0/16'], log: silentLogger });
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

test('two Services that claim one address: the first has it until it goes', { skip: !root }, async () => {
  const { backend, endpointsOf, close } = subject();
  const [first, second] = [
    contractEntry('a', '10.96.0.1', ['10.0.0.1']),
    contractEntry('b', '10.96.0.1', ['10.0.0.2']),
  ];
  const both = new Map([first, second].map(entry => [entry.key, entry]));
  await backend.apply(both);
  assert.deepEqual(endpointsOf('10.96.0.1'), ['10.0.0.1:8080']);
  const left = new Map([[second.key, second]]);
  await backend.apply(left, both);
  assert.deepEqual(endpointsOf('10.96.0.1'), ['10.0.0.2:8080']);
  close();
});

test('damage by others is noticed and repaired; changes of other tables are no damage', { skip: !root }, async () => {
  const { backend, endpointsOf, namespace, close } = subject();
  const entry = contractEntry('a', '10.96.0.1', ['10.0.0.1'], 600);
  const table = new Map([[entry.key, entry]]);
  await backend.apply(table);
  assert.equal(backend.damaged(), false);
  const nftables = new Nftables(namespace);
  nftables.run('add table ip other; add chain ip other x');
  assert.equal(backend.damaged(), false);
  for (const command of [`flush chain ip ${TABLE} choose`, `flush chain ip ${TABLE} p1a`, `delete table ip ${TABLE}`]) {
    nftables.run(command);
    assert.equal(backend.damaged(), true, command);
    await backend.apply(table);
    await backend.prune(table);
    assert.equal(backend.damaged(), false);
    assert.deepEqual(endpointsOf('10.96.0.1'), ['10.0.0.1:8080']);
  }
  // What nft shows must be readable: it aborted on some shapes.
  assert.match(nftables.run(`list table ip ${TABLE}`), /numgen random mod 1/);
  close();
});
