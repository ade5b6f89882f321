/**
 * A thousand CustomResourceDefinitions, some as large as those of big operators (70 MB together): how long they take to be taken and
 * established, what a GET beside them waits at worst, what the first client that asks for OpenAPI costs, the server's memory, and how soon a
 * cluster with them resumes. It starts a cluster of its own by `cox up`, and removes it. As root: `node26 bench/definitions.ts [count]`.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { resolve } from 'node:path';
import { seededRandom } from '../src/base/random.ts';

const COUNT = Number(process.argv[2] ?? 1000);
const CLUSTER = 'bench-definitions';
const COX = resolve(import.meta.dirname, '../cox');
const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const V2_PROTOBUF = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf';
const random = seededRandom(1);
const below = (limit: number) => Math.floor(random.next() * limit);

const cox = (...args: string[]): string =>
  execFileSync(COX, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 64 << 20 });

const LEAVES: readonly object[] = [
  { type: 'string', description: 'A text of the thing, as somebody documented it at length in the source.' },
  { type: 'integer', format: 'int32', minimum: 0, maximum: 100 },
  { type: 'boolean' },
  { type: 'string', pattern: '^[a-z]+$', maxLength: 63 },
  { 'x-kubernetes-int-or-string': true, anyOf: [{ type: 'integer' }, { type: 'string' }] },
  { type: 'string', enum: ['A', 'B', 'C'], default: 'A' },
];

function schema(depth: number, width: number): object {
  if (depth === 0) return LEAVES[below(LEAVES.length)]!;
  const kind = random.next();
  if (kind < 0.2) return { type: 'array', maxItems: 64, items: schema(depth - 1, width) };
  if (kind < 0.4) return { type: 'object', maxProperties: 64, additionalProperties: schema(depth - 1, width) };
  const properties = Object.fromEntries(
    Array.from({ length: width }, (_, at) => [`field${at}`, schema(depth - 1, width)]),
  );
  const rules = [{ rule: '!has(self.field0) || !has(self.field1) || true', message: 'one of them' }];
  const described = { type: 'object', description: 'Settings of a part.', properties };
  return depth === 2 ? { ...described, 'x-kubernetes-validations': rules } : described;
}

function definition(number: number): string {
  const [depth, width] = number % 20 === 0 ? [4, 9] : [3, 5];
  const group = `group${number % 100}.example.org`;
  const spec = {
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: width }, (_, at) => [`part${at}`, schema(depth, width)])),
  };
  const names = { kind: `Thing${number}`, plural: `things${number}`, singular: `thing${number}` };
  const openAPIV3Schema = { type: 'object', properties: { spec, status: { type: 'object' } } };
  return JSON.stringify({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${names.plural}.${group}` },
    spec: {
      group,
      names,
      scope: 'Namespaced',
      versions: [
        { name: 'v1', served: true, storage: true, subresources: { status: {} }, schema: { openAPIV3Schema } },
      ],
    },
  });
}

interface Reply {
  readonly body: Buffer;
  readonly ms: number;
}

class Api {
  readonly #server: string;
  readonly #agent: Agent;
  readonly pid: number;

  constructor() {
    const config = JSON.parse(cox('kubectl', '--name', CLUSTER, 'config', 'view', '--raw', '-o', 'json'));
    const { cluster } = config.clusters[0];
    const { user } = config.users[0];
    const text = (field: string) => Buffer.from(field, 'base64').toString();
    this.#server = cluster.server;
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: 16,
      ca: text(cluster['certificate-authority-data']),
      cert: text(user['client-certificate-data']),
      key: text(user['client-key-data']),
    });
    const status = JSON.parse(cox('status', '--name', CLUSTER, '-o', 'json'));
    this.pid = status.processes.find(({ role }: { role: string }) => role === 'server').pid;
  }
  ask(method: string, path: string, body?: string, accept = 'application/json'): Promise<Reply> {
    return new Promise((done, failed) => {
      const since = performance.now();
      const headers = { accept, 'accept-encoding': 'gzip', ...(body ? { 'content-type': 'application/json' } : {}) };
      const asked = request(this.#server + path, { method, agent: this.#agent, headers }, reply => {
        const parts: Buffer[] = [];
        reply.on('data', part => parts.push(part));
        reply.on('end', () => {
          const all = Buffer.concat(parts);
          if (reply.statusCode! < 300) done({ body: all, ms: performance.now() - since });
          else failed(new Error(`${method} ${path}: ${reply.statusCode} ${all.toString().slice(0, 300)}`));
        });
      });
      asked.on('error', failed);
      asked.end(body);
    });
  }
  /** Runs the work; says what it took and the longest that a GET of one object waited meanwhile. */
  async beside(what: string, work: () => Promise<unknown>): Promise<void> {
    let worst = 0;
    let isDone = false;
    const probe = (async () => {
      while (!isDone) {
        worst = Math.max(worst, (await this.ask('GET', '/api/v1/namespaces/default')).ms);
        await new Promise(next => setTimeout(next, 10));
      }
    })();
    const since = performance.now();
    const cpu = this.cpuMs();
    await work();
    const ms = performance.now() - since;
    isDone = true;
    await probe;
    console.log(
      `${what}: ${Math.round(ms)} ms, ${Math.round(this.cpuMs() - cpu)} ms of processor; a GET beside it waits ${Math.round(worst)} ms at worst; resident ${this.residentMb()} MB`,
    );
  }
  cpuMs(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }
  residentMb(): number {
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))![1]) / 1024);
  }
  close(): void {
    this.#agent.destroy();
  }
}

async function established(api: Api): Promise<void> {
  for (;;) {
    const conditions = cox(
      ...['kubectl', '--name', CLUSTER, 'get', 'crd', '--chunk-size=100'],
      ...['-o', 'jsonpath={.items[*].status.conditions[?(@.type=="Established")].status}'],
    );
    if (conditions.split(' ').filter(status => status === 'True').length >= COUNT) return;
    await api.ask('GET', '/readyz');
  }
}

const up = (): number => {
  const since = performance.now();
  cox('up', '--name', CLUSTER, '--nodes', '1', '--api-port', '0');
  return Math.round(performance.now() - since);
};

up();
try {
  const definitions = Array.from({ length: COUNT }, (_, number) => definition(number));
  const megabytes = definitions.reduce((sum, text) => sum + text.length, 0) / 1e6;
  console.log(`${COUNT} definitions, ${megabytes.toFixed(0)} MB`);
  const api = new Api();
  await api.beside('created by 8 clients', async () => {
    const queue = [...definitions];
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let next = queue.shift(); next; next = queue.shift()) await api.ask('POST', DEFINITIONS, next);
      }),
    );
  });
  await established(api);
  const v2 = () => api.ask('GET', '/openapi/v2', undefined, V2_PROTOBUF);
  await api.beside('OpenAPI version 2, first', v2);
  await api.beside('OpenAPI version 2, again', v2);
  await api.beside('OpenAPI version 3 of one group', () => api.ask('GET', '/openapi/v3/apis/group0.example.org/v1'));
  api.close();
  cox('down', '--name', CLUSTER, '--keep-data');
  console.log(`resumed by cox up: ${up()} ms; resident ${new Api().residentMb()} MB`);
} finally {
  cox('down', '--name', CLUSTER);
}
