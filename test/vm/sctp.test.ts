/** Services and policies with real SCTP associations. The kernel here has no SCTP, so all of it runs on a machine that has. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer, Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ENDPOINT_SLICES, NAMESPACES, NETWORK_POLICIES, SERVICES } from '../../src/client/resources.ts';
import { policy } from '../../src/network/policy/policy-fixture.ts';
import {
  AF_INET,
  bind,
  listen,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socket,
} from '../../src/sys/file-descriptor.ts';
import { inNamespace } from '../../src/sys/netns.ts';
import { encodeSocketAddress } from '../../src/sys/socket.ts';
import { Bed, type BedNode } from '../network/bed.ts';
import { type ProbedPod, startPod } from '../network/policy-probes.ts';
import { endpoint, service, slice } from '../network/services.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

if (process.getuid?.() !== 0) test('SCTP', { skip: 'needs root' });
else if (isInside) tests();
else
  test('SCTP, on a machine with Debian’s kernel', { timeout: 400_000 }, async () => {
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, { timeoutMs: 380_000 });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function tests(): void {
  const IPPROTO_SCTP = 132;
  const [PORT, TARGET, NODE_PORT, VIP] = [3868, 38_680, 30_868, '10.96.0.49'];
  let bed: Bed;
  let [one, two]: BedNode[] = [];
  let [server, friend, stranger]: ProbedPod[] = [];
  const ends: (() => void)[] = [];

  const open = (namespace: string) =>
    inNamespace(namespace, () => socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_SCTP));

  /** Tells its name and who asks. One-to-one sockets of SCTP are streams to whoever has the descriptor. */
  function serve(namespace: string, name: string): void {
    const fd = open(namespace);
    const address = encodeSocketAddress({ address: '0.0.0.0', port: TARGET });
    bind(fd, address, address.length);
    listen(fd, 16);
    const listening = createServer(peer => {
      // An association has no half-open state, so nothing tells the server that the client has seen the end.
      peer.on('error', () => {}).on('finish', () => peer.destroy());
      peer.end(`${name} ${peer.remoteAddress}`);
    }).listen({ fd });
    ends.push(() => listening.close());
  }

  async function ask(namespace: string, address: string, port: number): Promise<string> {
    const client = new Socket({ fd: open(namespace), readable: true, writable: true, manualStart: true } as object);
    client.setTimeout(3000, () => client.destroy(new Error('timeout')));
    return new Promise(resolve => {
      let text = '';
      client.on('data', bytes => (text += bytes));
      client.on('error', error => resolve((error as NodeJS.ErrnoException).code ?? error.message));
      client.on('close', () => resolve(text));
      client.connect({ host: address, port });
    });
  }

  async function becomes(what: string, asks: () => Promise<string>, wanted: RegExp): Promise<void> {
    let last = '';
    for (const deadline = performance.now() + 30_000; performance.now() < deadline; await sleep(100)) {
      last = await asks();
      if (wanted.test(last)) return;
    }
    assert.fail(`${what}: ${last}`);
  }

  before(async () => {
    execFileSync('modprobe', ['sctp']);
    bed = new Bed();
    [one, two] = [await bed.addNode(), await bed.addNode()];
    for (const node of [one, two]) bed.startProxy(node);
    bed.api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'x', labels: {} } });
    const pod = (node: BedNode, name: string) =>
      startPod(bed, node, { namespace: 'x', name, labels: { app: name }, ports: [] });
    [server, friend, stranger] = [await pod(two, 'server'), await pod(one, 'friend'), await pod(one, 'stranger')];
    serve(server.netns, 'server');
  });
  after(async () => {
    for (const end of ends) end();
    await bed.close();
  });

  test('straight to the pod, by its Service, by a node port', async () => {
    const ports = [{ port: PORT, targetPort: TARGET, protocol: 'SCTP', nodePort: NODE_PORT }];
    await becomes('the pod', () => ask(friend!.netns, server!.ips[0]!, TARGET), /^server 10\.244\.0\./);
    assert.match(await ask(friend!.netns, VIP, PORT), /^(?!server)/);
    const endpoints = [endpoint(server!.ips[0]!, { nodeName: two!.name })];
    bed.api.put(ENDPOINT_SLICES, slice({ service: 'diameter', endpoints, ports }));
    bed.api.put(SERVICES, service({ name: 'diameter', type: 'NodePort', clusterIP: VIP, ports }));
    await becomes('the Service', () => ask(friend!.netns, VIP, PORT), /^server 10\.244\.0\./);
    await becomes('the node port', () => ask(bed.switch, one!.ip, NODE_PORT), /^server /);
  });

  test('a policy lets in whom it names, at the SCTP port it names, also behind the Service', async () => {
    const allow = (protocol: string) =>
      bed.api.put(
        NETWORK_POLICIES,
        policy('server', 'x', {
          podSelector: { matchLabels: { app: 'server' } },
          ingress: [
            { from: [{ podSelector: { matchLabels: { app: 'friend' } } }], ports: [{ protocol, port: TARGET }] },
          ],
        }),
      );
    allow('SCTP');
    await becomes('a stranger', () => ask(stranger!.netns, server!.ips[0]!, TARGET), /^timeout$/);
    for (const [address, port] of [
      [server!.ips[0]!, TARGET],
      [VIP, PORT],
    ] as const)
      await becomes(`a friend at ${address}`, () => ask(friend!.netns, address, port), /^server /);
    assert.equal(await ask(stranger!.netns, VIP, PORT), 'timeout');
    allow('TCP');
    await becomes('the port of another protocol', () => ask(friend!.netns, server!.ips[0]!, TARGET), /^timeout$/);
  });
}
