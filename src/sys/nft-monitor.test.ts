import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { createNetns, deleteNetns } from './netns.ts';
import { NFPROTO_IPV4, Nfnetlink } from './nfnetlink.ts';
import { NftMonitor } from './nft-monitor.ts';
import { Nftables } from './nftables.ts';

const root = process.getuid?.() === 0;

test('tells of others’ changes to its table at once, and of nothing else', { skip: !root }, async () => {
  const namespace = `cox-nftmon-${process.pid}`;
  createNetns(namespace);
  const raw = new Nfnetlink(namespace);
  const nftables = new Nftables(namespace);
  const told = new EventTarget();
  const monitor = new NftMonitor({
    namespace,
    tables: [{ family: NFPROTO_IPV4, table: 'ours' }],
    ownPort: raw.portId(),
    onChange: () => told.dispatchEvent(new Event('told')),
  });
  try {
    monitor.own(() => nftables.run('add table ip ours; add set ip ours s { type ipv4_addr; }'));
    assert.equal(monitor.takeTouched(), false);
    const ref = { family: NFPROTO_IPV4, table: 'ours' };
    const element = { set: 's', key: Buffer.from([10, 0, 0, 1]), data: undefined };
    raw.change(ref, { remove: [], add: [element] });
    raw.setChains(ref, [{ name: 'c', rules: [] }]);
    nftables.run('add table ip other; add chain ip other c; add table ip6 ours');
    assert.equal(monitor.takeTouched(), false);
    for (const command of [
      'flush set ip ours s',
      'delete chain ip ours c',
      'add rule ip ours d drop',
      'delete table ip ours',
    ]) {
      if (command.includes(' d ')) monitor.own(() => nftables.run('add chain ip ours d'));
      const startMs = performance.now();
      const next = once(told, 'told');
      nftables.run(command);
      await next;
      assert.ok(performance.now() - startMs < 500, command);
      assert.equal(monitor.takeTouched(), true, command);
      assert.equal(monitor.takeTouched(), false);
    }
  } finally {
    monitor.close();
    raw.close();
    deleteNetns(namespace);
  }
});
