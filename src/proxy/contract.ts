/**
 * What every ProxyBackend must do, as tests. Call from a test file:
 * `proxyBackendContract('memory', () => ({ backend, endpointsOf, close }))`.
 * A table it is given names every (address or node port, protocol, port) once: `claims.ts` has seen to that. Senders' and endpoints'
 * addresses at the hooks of others' tables: see the head of `nftables/rules.ts`.
 */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { ProxyBackend } from './backend.ts';
import type { Affinity, Endpoint, ServiceEntry, ServiceTable } from './model.ts';

export interface ContractSubject {
  readonly backend: ProxyBackend;
  /** A second backend on the same state: the agent after a restart. */
  restarted(): ProxyBackend;
  /** Where a new connection to a cluster IP's port 80/TCP may go, sorted: `10.0.0.1:8080`; `refused`; or undefined when nothing is programmed. */
  endpointsOf(clusterIp: string): readonly string[] | 'refused' | undefined;
  close(): void;
}

export function contractEntry(
  name: string,
  clusterIp: string,
  ips: readonly string[],
  affinity?: Affinity,
): ServiceEntry {
  const endpoints: Endpoint[] = ips.map(ip => ({ ip, port: 8080, local: false }));
  return {
    key: `default/${name}`,
    clusterIps: [clusterIp],
    frontends: [
      {
        kind: 'cluster-ip',
        address: clusterIp,
        family: 4,
        protocol: 'TCP',
        port: 80,
        endpoints,
        localEndpoints: undefined,
        masquerade: 'off-cluster',
        affinity,
        whenEmpty: 'reject',
        sourceRanges: undefined,
      },
    ],
  };
}

const tableOf = (...entries: ServiceEntry[]): ServiceTable => new Map(entries.map(entry => [entry.key, entry]));

export function proxyBackendContract(
  name: string,
  make: () => ContractSubject,
  options: { skip?: boolean } = {},
): void {
  describe(`proxy backend contract: ${name}`, { skip: options.skip ?? false }, () => {
    let subject: ContractSubject;
    beforeEach(() => {
      subject = make();
    });
    afterEach(() => subject.close());
    const a = contractEntry('a', '10.96.0.1', ['10.0.0.1', '10.0.0.2']);
    const b = contractEntry('b', '10.96.0.2', ['10.0.0.3']);

    test('programs a table, then differences', async () => {
      const first = tableOf(a);
      await subject.backend.apply(first);
      await subject.backend.prune(first);
      assert.deepEqual(subject.endpointsOf('10.96.0.1'), ['10.0.0.1:8080', '10.0.0.2:8080']);
      const second = tableOf(contractEntry('a', '10.96.0.1', ['10.0.0.2', '10.0.0.4', '10.0.0.5']), b);
      await subject.backend.apply(second, first);
      assert.deepEqual(subject.endpointsOf('10.96.0.1'), ['10.0.0.2:8080', '10.0.0.4:8080', '10.0.0.5:8080']);
      assert.deepEqual(subject.endpointsOf('10.96.0.2'), ['10.0.0.3:8080']);
      const third = tableOf(b);
      await subject.backend.apply(third, second);
      assert.equal(subject.endpointsOf('10.96.0.1'), undefined);
    });

    test('without endpoints refuses, and comes back', async () => {
      const empty = tableOf(contractEntry('a', '10.96.0.1', []));
      await subject.backend.apply(empty);
      assert.equal(subject.endpointsOf('10.96.0.1'), 'refused');
      const full = tableOf(a);
      await subject.backend.apply(full, empty);
      assert.deepEqual(subject.endpointsOf('10.96.0.1'), ['10.0.0.1:8080', '10.0.0.2:8080']);
    });

    test('an address passes from one Service to another in one step', async () => {
      const before = tableOf(a, b);
      await subject.backend.apply(before);
      const after = tableOf(contractEntry('b', '10.96.0.1', ['10.0.0.9']));
      await subject.backend.apply(after, before);
      assert.deepEqual(subject.endpointsOf('10.96.0.1'), ['10.0.0.9:8080']);
      assert.equal(subject.endpointsOf('10.96.0.2'), undefined);
    });

    test('a restarted backend corrects and keeps what is there, and prunes only when told', async () => {
      await subject.backend.apply(tableOf(a, b));
      const next = subject.restarted();
      const table = tableOf(contractEntry('b', '10.96.0.2', ['10.0.0.7']));
      await next.apply(table);
      assert.deepEqual(subject.endpointsOf('10.96.0.1'), ['10.0.0.1:8080', '10.0.0.2:8080']);
      assert.deepEqual(subject.endpointsOf('10.96.0.2'), ['10.0.0.7:8080']);
      await next.prune(table);
      assert.equal(subject.endpointsOf('10.96.0.1'), undefined);
      assert.deepEqual(subject.endpointsOf('10.96.0.2'), ['10.0.0.7:8080']);
      next.close();
    });
  });
}
