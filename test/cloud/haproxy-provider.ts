/**
 * A cloud for tests: serves the load balancer interface of `docs/load-balancer-provider.proto` on a unix socket, and makes of each
 * load balancer a HAProxy of its own in one network namespace on the nodes' segment, which balances to node ports. The folder
 * `fail` beside the socket makes every call fail; calls are listed in `calls.log` there. Machines are what `machines.json` there says, by name; of others it knows
 * that they are there and no more.
 * Run: haproxy-provider.ts SOCKET SWITCH_NAMESPACE NAMESPACE FIRST_HOST_NUMBER. It ends, and cleans up, on SIGTERM.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Node, Service } from '../../src/api/core/v1.gen.ts';
import { PROVIDER_CALLS } from '../../src/controllers/cloudloadbalancer/provider.ts';
import { INSTANCE_CALLS } from '../../src/controllers/cloudnode/instances.ts';
import { GRPC, GrpcError, serveGrpc } from '../../src/csi/grpc.ts';
import { createNodeNamespace, deleteNodeNamespace, nodeAddress } from '../../src/network/segment.ts';
import { addAddress, withRoutes } from '../../src/sys/netlink.ts';
import { netnsPath } from '../../src/sys/netns.ts';

const [socket = '', switchNamespace = '', namespace = '', firstHost = '900'] = process.argv.slice(2);
const folder = dirname(socket);
const HOSTS = 20;
const addresses = Array.from({ length: HOSTS }, (_, i) => nodeAddress(Number(firstHost) + i));
// The first is the namespace's own.
const free = new Set(addresses.slice(1));

interface Balancer {
  readonly ip: string;
  daemon: ChildProcess | undefined;
}
const balancers = new Map<string, Balancer>();

createNodeNamespace({ switch: switchNamespace, name: namespace, ips: addresses.slice(0, 1) });
withRoutes(namespace, routes => {
  const index = routes.linkIndex('eth0');
  routes.request([...free].map(ip => addAddress({ index, prefix: `${ip}/32` })));
});

function enter(method: string, name: string): void {
  appendFileSync(join(folder, 'calls.log'), `${method} ${name}\n`);
  if (existsSync(join(folder, 'fail'))) throw new GrpcError(GRPC.INTERNAL, 'the cloud is on strike');
}

async function run(name: string, balancer: Balancer, service: Service, nodes: readonly Node[]): Promise<void> {
  const hosts = nodes.flatMap(
    ({ status }) => status?.addresses?.find(({ type }) => type === 'InternalIP')?.address ?? [],
  );
  const sections = (service.spec.ports ?? []).map(
    ({ port, nodePort }) =>
      `listen p${port}\n  bind ${balancer.ip}:${port}\n${hosts.map((ip, i) => `  server n${i} ${ip}:${nodePort} check inter 200`).join('\n')}`,
  );
  const path = join(folder, `${name}.cfg`);
  writeFileSync(
    path,
    `global\n  maxconn 500\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n  option redispatch\n${sections.join('\n')}\n`,
  );
  await end(balancer);
  const daemon = spawn('nsenter', [`--net=${netnsPath(namespace)}`, '--', '/usr/sbin/haproxy', '-db', '-f', path], {
    stdio: 'ignore',
  });
  balancer.daemon = daemon;
}

function end(balancer: Balancer): Promise<void> {
  const { daemon } = balancer;
  balancer.daemon = undefined;
  if (!daemon || daemon.exitCode !== null) return Promise.resolve();
  const gone = new Promise<void>(resolve => daemon.once('exit', () => resolve()));
  daemon.kill('SIGKILL');
  return gone;
}

const read = ({ serviceJson, nodesJson }: { serviceJson: string; nodesJson: readonly string[] }) => ({
  service: JSON.parse(serviceJson) as Service,
  nodes: nodesJson.map(text => JSON.parse(text) as Node),
});

/** As the reply to InstanceMetadata has it, and `isOff`, `isGone`. */
function machineOf({ nodeJson }: { nodeJson: string }) {
  const { metadata } = JSON.parse(nodeJson) as Node;
  const path = join(folder, 'machines.json');
  return (existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {})[metadata.name];
}

const server = await serveGrpc(
  socket,
  {
    getLoadBalancer: ({ name }) => {
      enter('get', name);
      return { exists: balancers.has(name) };
    },
    ensureLoadBalancer: async request => {
      const { service, nodes } = read(request);
      enter('ensure', service.metadata.name);
      if (service.metadata.annotations?.['example.com/elsewhere']) throw new GrpcError(GRPC.UNIMPLEMENTED, 'not mine');
      let balancer = balancers.get(request.name);
      if (!balancer) {
        const [ip] = free;
        if (ip === undefined) throw new GrpcError(GRPC.RESOURCE_EXHAUSTED, 'no address left');
        free.delete(ip);
        balancers.set(request.name, (balancer = { ip, daemon: undefined }));
      }
      await run(request.name, balancer, service, nodes);
      return { ingress: [{ ip: balancer.ip, ipMode: 'Proxy' }] };
    },
    updateLoadBalancer: async request => {
      const { service, nodes } = read(request);
      enter('update', `${service.metadata.name} ${nodes.map(({ metadata }) => metadata.name).sort()}`);
      const balancer = balancers.get(request.name);
      if (!balancer) throw new GrpcError(GRPC.NOT_FOUND, 'no such load balancer');
      await run(request.name, balancer, service, nodes);
      return {};
    },
    ensureLoadBalancerDeleted: async ({ name }) => {
      enter('delete', name);
      const balancer = balancers.get(name);
      if (balancer) {
        await end(balancer);
        balancers.delete(name);
        free.add(balancer.ip);
      }
      return {};
    },
    instanceExists: request => ({ yes: !machineOf(request)?.isGone }),
    instanceShutdown: request => ({ yes: machineOf(request)?.isOff ?? false }),
    instanceMetadata: request => {
      const machine = machineOf(request);
      if (!machine) throw new GrpcError(GRPC.UNIMPLEMENTED, 'not a machine of mine');
      return machine;
    },
  },
  { ...PROVIDER_CALLS, ...INSTANCE_CALLS },
);
process.stdout.write('serving\n');

process.once('SIGTERM', async () => {
  for (const balancer of balancers.values()) await end(balancer);
  await server.close();
  deleteNodeNamespace({ switch: switchNamespace, name: namespace });
  process.exit(0);
});
