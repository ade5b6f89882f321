/**
 * Random policies, namespaced and cluster-wide, between real pods of two nodes: every pair is asked in every protocol, at every port and by both families,
 * and the answer compared with the plain model.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import type { Node } from '../../src/api/core/v1.gen.ts';
import { NAMESPACES as NAMESPACE_OBJECTS, NETWORK_POLICIES, NODES, PODS } from '../../src/client/resources.ts';
import { CLUSTER_KINDS } from '../../src/network/policy/cluster-policies.ts';
import { isAllowed } from '../../src/network/policy/plain-model.ts';
import {
  clusterPolicies,
  NAMESPACES,
  namespaceLabels,
  PORTS,
  podShapes,
  policies,
} from '../../src/network/policy/policy-fixture.ts';
import { Bed, type BedNode, root } from './bed.ts';
import { type Probe, type ProbedPod, Probes, podObject, startPod } from './policy-probes.ts';

const POD_COUNT = 10;
const ROUNDS = 6;
const PATIENCE_MS = 60_000;
/** A question sent before the nodes heard of a change has no answer: it is asked again, with more time for a busy machine. */
const ROUND_MS = { first: 800, max: 8000 };
const BLOCKS = [
  { cidr: '10.244.0.0/16', except: ['10.244.0.4/30'] },
  { cidr: '10.244.1.0/29' },
  { cidr: 'fd00:10:244::/56', except: ['fd00:10:244:2::4/126'] },
  { cidr: 'fd00:10:244:1::/124' },
  { cidr: '0.0.0.0/0', except: ['10.244.0.0/24', '10.244.1.4/32'] },
];

const NETWORKS = ['10.244.0.0/29', '10.244.1.4/30', '0.0.0.0/0', 'fd00:10:244:1::/64'];

describe('policies between real pods', { skip: !root }, () => {
  let bed: Bed;
  let nodes: BedNode[];
  let nodeFacts: { labels: Record<string, string>; ips: readonly string[] }[];
  let pods: ProbedPod[];
  const probes = new Probes();
  const seed = Number(process.env['COX_SEED'] ?? Date.now() % 2 ** 31);

  before(async () => {
    bed = new Bed(['IPv4', 'IPv6']);
    nodes = [await bed.addNode(), await bed.addNode()];
    const [shapes] = fc.sample(podShapes(POD_COUNT), { numRuns: 1, seed });
    setNamespaces({ x: { ns: 'x', team: 'red' }, y: { ns: 'y', team: 'blue' }, z: { ns: 'z', team: 'red' } });
    nodeFacts = nodes.map(({ ips }, i) => ({ labels: { role: i ? 'inner' : 'edge' }, ips }));
    for (const [i, { name }] of nodes.entries()) {
      const node = bed.api.read<Node>(NODES, name)!;
      bed.api.put(NODES, { ...node, metadata: { ...node.metadata, labels: nodeFacts[i]!.labels } });
    }
    pods = [];
    for (const [i, shape] of shapes!.entries()) pods.push(await startPod(bed, nodes[i % 2]!, shape));
    for (const pod of pods) probes.listen(pod, PORTS);
  });
  after(async () => {
    probes.close();
    await bed.close();
  });

  const setNamespaces = (labels: Readonly<Record<string, Readonly<Record<string, string>>>>) => {
    for (const name of NAMESPACES)
      bed.api.put(NAMESPACE_OBJECTS, {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name, labels: { ...labels[name] } },
      });
  };

  const allProbes = (): Probe[] =>
    pods.flatMap(from =>
      pods.flatMap(to =>
        [0, 1].flatMap(at =>
          PORTS.flatMap(port =>
            (at === 0 ? (['TCP', 'UDP', 'SCTP'] as const) : (['TCP', 'UDP'] as const)).map(protocol => ({
              from,
              to,
              at,
              protocol,
              port,
            })),
          ),
        ),
      ),
    );

  test(`${ROUNDS} random worlds, seed ${seed}`, async () => {
    const worlds = fc.sample(
      fc.record({
        namespaces: namespaceLabels,
        policies: policies(BLOCKS, { minLength: 1, maxLength: 7 }),
        cluster: clusterPolicies(NETWORKS, { minLength: 0, maxLength: 5 }),
        shapes: podShapes(POD_COUNT),
      }),
      { numRuns: ROUNDS, seed },
    );
    let former: string[] = [];
    const formerCluster = new Map<string, string[]>();
    let [asked, allowed] = [0, 0];
    for (const [round, { namespaces, policies: wanted, cluster, shapes }] of worlds.entries()) {
      // Labels change too, namespaces of pods do not.
      pods = pods.map((pod, i) => ({ ...pod, labels: shapes[i]!.labels }));
      for (const pod of pods) bed.api.put(PODS, podObject(pod, pod.node, pod.ips));
      setNamespaces(namespaces);
      const keys = wanted.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
      for (const key of former) if (!keys.includes(key)) bed.api.remove(NETWORK_POLICIES, key);
      for (const one of wanted) bed.api.put(NETWORK_POLICIES, one);
      former = keys;
      for (const { kind, of } of CLUSTER_KINDS) {
        const ofKind = cluster.filter(one => one.kind === kind);
        const names = ofKind.map(({ metadata }) => metadata.name);
        for (const name of formerCluster.get(kind) ?? []) if (!names.includes(name)) bed.api.remove(of, name);
        for (const one of ofKind) bed.api.put(of, one);
        formerCluster.set(kind, names);
      }

      const world = { namespaces, pods, policies: wanted, clusterPolicies: cluster, nodes: nodeFacts };
      const expects = ({ from, to, at, protocol, port }: Probe) =>
        isAllowed(world, { from: { ip: from.ips[at]!, pod: from }, to: { ip: to.ips[at]!, pod: to }, protocol, port });
      let open = allProbes();
      asked += open.length;
      allowed += open.filter(expects).length;
      // The nodes hear of changes a moment later: what differs is asked again.
      const deadline = performance.now() + PATIENCE_MS;
      for (let roundMs = ROUND_MS.first; ; roundMs = Math.min(roundMs * 2, ROUND_MS.max)) {
        const expected = new Set(open.filter(expects));
        const passed = await probes.round(open, expected, roundMs);
        const wrong = open.filter(probe => passed.has(probe) !== expected.has(probe));
        if (wrong.length === 0) break;
        if (performance.now() > deadline) {
          const [first] = wrong as [Probe];
          assert.fail(
            `round ${round}, seed ${seed}: ${wrong.length} of ${open.length} wrong; ${first.from.namespace}/${first.from.name} (${first.from.ips[first.at]}) to ${first.to.namespace}/${first.to.name} (${first.to.ips[first.at]}) ${first.protocol} ${first.port} should be ${expects(first) ? 'allowed' : 'denied'}\n${JSON.stringify([world.policies, cluster])}`,
          );
        }
        open = wrong;
      }
    }
    console.log(`${asked} questions asked, ${allowed} of them allowed`);
    assert.ok(allowed > 0 && allowed < asked, 'policies that say neither yes nor no');
  });
});
