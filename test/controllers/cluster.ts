/**
 * A control plane in one process for tests: API server over the memory store, controllers, scheduler, and nodes whose
 * kubelet is a stand-in that only reports (pods become Running and Ready, and vanish when deleted). It runs no container.
 */

import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { type KubeObject, keyOf } from '../../src/api/meta.ts';
import type { ResourceInfo } from '../../src/api/schema.ts';
import { namespaceLifecycle } from '../../src/apiserver/admission/namespace-lifecycle.ts';
import { LOOPBACK_USER } from '../../src/apiserver/request.ts';
import { podHandlers } from '../../src/apiserver/reviews/pods.ts';
import { ApiServer } from '../../src/apiserver/server.ts';
import { formatTime, systemClock } from '../../src/base/clock.ts';
import { createLogger, type Logger } from '../../src/base/log.ts';
import { seededRandom } from '../../src/base/random.ts';
import { Client, type ResourceClient } from '../../src/client/client.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import { NAMESPACES, NODES, PODS } from '../../src/client/resources.ts';
import type { ResourceId, Transport } from '../../src/client/transport.ts';
import { startControllers } from '../../src/controllers/start.ts';
import { startScheduler } from '../../src/scheduler/scheduler.ts';
import { openMemoryStore } from '../../src/store/memory.ts';

export interface TestCluster {
  readonly api: Transport;
  readonly client: Client;
  readonly informers: InformerFactory;
  of<T extends KubeObject>(of: ResourceId): ResourceClient<T>;
  /** Resolves with the first defined, non-false value. */
  until<T>(what: string, check: () => T | undefined | false | Promise<T | undefined | false>): Promise<T>;
  addNode(
    name: string,
    facts?: { cpu?: string; labels?: Record<string, string>; taints?: NonNullable<Node['spec']>['taints'] },
  ): Promise<void>;
  events(): Promise<{ reason: string; message: string; type: string }[]>;
  /** Pods named here stay as they are. */
  readonly frozen: Set<string>;
  /** Images whose pods never become ready. */
  readonly brokenImages: Set<string>;
  /** Milliseconds before a deleted pod is gone. */
  stopMs: number;
  close(): Promise<void>;
}

export async function openCluster(
  options: {
    controllers?: boolean;
    scheduler?: boolean;
    log?: Logger;
    extensions?: Transport;
    optional?: readonly ResourceInfo[];
  } = {},
): Promise<TestCluster> {
  const log = options.log ?? createLogger('test', { level: 'warn' });
  const clock = systemClock;
  const late: { api?: Transport; server?: ApiServer } = {};
  const server = await ApiServer.open({
    store: openMemoryStore(),
    optional: options.optional ?? [],
    log,
    clock,
    admission: [namespaceLifecycle({ reader: () => late.server!.reader } as never)],
    createHandlers: podHandlers({
      reader: () => late.server!.reader,
      transport: () => late.api!,
      stored: () => late.api as never,
      clock,
    }),
  });
  late.server = server;
  const api = server.transport(LOOPBACK_USER);
  late.api = api;
  const stop = new AbortController();
  const informers = new InformerFactory({ transport: api, log });
  informers.start(stop.signal);
  const client = new Client(api);
  const random = seededRandom(1);
  for (const name of ['default', 'kube-system', 'kube-node-lease']) {
    await api
      .create({ of: NAMESPACES }, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
      .catch(() => undefined);
  }
  const host =
    options.controllers === false
      ? undefined
      : startControllers({
          transport: api,
          informers,
          log,
          clock,
          random,
          signal: stop.signal,
          caPem: 'CA',
          ...(options.extensions ? { extensions: options.extensions } : {}),
          serves: of => server.table.of(of) !== undefined,
        });
  const scheduler =
    options.scheduler === false
      ? undefined
      : startScheduler({ transport: api, informers, log, clock, random, signal: stop.signal });
  await Promise.all([host?.ready, scheduler?.ready]);
  const pods = client.of<Pod>(PODS);
  let address = 1;

  const cluster: TestCluster = {
    api,
    client,
    informers,
    of: of => client.of(of),
    frozen: new Set(),
    brokenImages: new Set(),
    stopMs: 0,
    async until(what, check) {
      const deadlineMs = performance.now() + 30_000;
      for (;;) {
        const value = await check();
        if (value !== undefined && value !== false) return value as never;
        if (performance.now() > deadlineMs) throw new Error(`timed out waiting until ${what}`);
        await new Promise(resolve => setTimeout(resolve, 2));
      }
    },
    async addNode(name, { cpu = '4', labels = {}, taints } = {}) {
      const allocatable = { cpu, memory: '8Gi', pods: '1000', 'ephemeral-storage': '100Gi' };
      const node: Node = {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
        spec: { ...(taints ? { taints } : {}) },
      };
      const status = {
        capacity: allocatable,
        allocatable,
        conditions: [
          {
            type: 'Ready',
            status: 'True',
            reason: 'KubeletReady',
            message: '',
            lastHeartbeatTime: formatTime(clock.now()),
            lastTransitionTime: formatTime(clock.now()),
          },
        ],
      };
      const made = await client.of<Node>(NODES).create(node);
      await client.of<Node>(NODES).patchStatus('', made.metadata.name, { status });
    },
    events: async () =>
      (await api.list({ of: { group: '', version: 'v1', resource: 'events' } })).items as unknown as {
        reason: string;
        message: string;
        type: string;
      }[],
    async close() {
      stop.abort();
      await host?.done;
      await server.close();
    },
  };

  informers.get<Pod>(PODS).onChange(change => {
    if (change.deleted || !change.object.spec?.nodeName || cluster.frozen.has(keyOf(change.object))) return;
    const pod = change.object;
    const { namespace = '', name } = pod.metadata;
    if (pod.metadata.deletionTimestamp) {
      setTimeout(
        () => void pods.delete(namespace, name, { gracePeriodSeconds: 0 }).catch(() => undefined),
        cluster.stopMs,
      );
      return;
    }
    if (pod.status?.podIP) return;
    const now = formatTime(clock.now());
    const ready = cluster.brokenImages.has(pod.spec!.containers[0]!.image ?? '') ? 'False' : 'True';
    const index = address++;
    const podIP = `10.244.${index >> 8}.${index & 255}`;
    const conditions = ['Initialized', 'ContainersReady', 'Ready'].map(type => ({
      type,
      status: type === 'Initialized' ? 'True' : ready,
      lastTransitionTime: now,
    }));
    const status = { phase: 'Running', podIP, podIPs: [{ ip: podIP }], startTime: now, conditions };
    void pods
      .patchStatus(namespace, name, { status }, 'application/strategic-merge-patch+json')
      .catch(error => log.debug('stand-in kubelet', { error }));
  });
  return cluster;
}
