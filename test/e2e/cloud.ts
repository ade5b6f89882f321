/** Starts and ends the test cloud's drivers (`test/csi/cloud-driver.ts`) on the nodes of a cluster. */

import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detachLoopsBelow } from '../../src/sys/block-device.ts';
import { type Cluster, root } from './cluster.ts';
import { accessFrom, killOnNode, startOnNode } from './node-program.ts';
import { eventually } from './process.ts';

export class Cloud {
  readonly driver: string;
  readonly folder = mkdtempSync(join(tmpdir(), 'cox-cloud-'));
  readonly #cluster: Cluster;
  readonly #processes = new Map<string, ChildProcess>();
  readonly #topologyKey: string;

  constructor(cluster: Cluster, options: { driver: string; topologyKey: string }) {
    this.#cluster = cluster;
    this.driver = options.driver;
    this.#topologyKey = options.topologyKey;
  }

  /** Each node is a zone of its own: `us-test-1a`, `us-test-1b`. */
  zoneOf(node: string): string {
    return `us-test-1${'abcdefgh'[Number(node.slice('node-'.length)) - 1]}`;
  }
  /** With drivers of other clouds in the same process, if asked. */
  async start(node: string, isController: boolean, others: readonly Cloud[] = []): Promise<void> {
    // As a cloud's own controller labels its nodes.
    const zone = this.zoneOf(node);
    await this.#cluster.kubectl(
      'label',
      'node',
      node,
      `topology.kubernetes.io/zone=${zone}`,
      `topology.kubernetes.io/region=${zone.slice(0, -1)}`,
      '--overwrite',
    );
    const options = [this, ...others].map(cloud => ({
      driver: cloud.driver,
      node,
      topology: { [cloud.#topologyKey]: zone },
      rootDir: '/var/lib/kubelet',
      folder: cloud.folder,
      isController,
      ...accessFrom(this.#cluster, node),
    }));
    // An agent that a test has killed may be gone by the time its namespaces are entered.
    for (let attempt = 1; !(await this.#serve(node, options)); attempt++)
      if (attempt === 3) throw new Error(`the drivers on ${node} ended before they were registered`);
  }
  /** Resolves once the drivers are registered; false: they ended before. */
  async #serve(node: string, options: readonly { readonly driver: string }[]): Promise<boolean> {
    const file = join(root, 'test', 'csi', 'cloud-driver.ts');
    const child = await startOnNode(this.#cluster, node, file, options);
    this.#processes.set(node, child);
    let output = '';
    child.stdout!.on('data', text => {
      output += text;
    });
    const isRegistered = () => output.split('registered').length > options.length;
    await eventually(
      `${options.map(({ driver }) => driver).join(', ')} registered on ${node}`,
      async () => isRegistered() || child.exitCode !== null,
      { timeoutMs: 60_000 },
    );
    return isRegistered();
  }
  /** As a crash would. */
  async kill(node: string): Promise<void> {
    const child = this.#processes.get(node);
    if (!child) return;
    this.#processes.delete(node);
    await killOnNode(child);
  }
  async end(): Promise<void> {
    for (const node of [...this.#processes.keys()]) await this.kill(node);
    await detachLoopsBelow(this.folder);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
