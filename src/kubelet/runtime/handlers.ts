/**
 * The runtimes of one node as one: a sandbox goes to the runtime that has its handler, and whatever is asked of it or its containers
 * later goes there too. Invariants: the first runtime has the default handler `''`; no two have the same one. It keeps nothing:
 * who has what, the runtimes are asked.
 */

import type { Duplex } from 'node:stream';
import { assert } from '../../base/assert.ts';
import { notFound } from '../../base/errors.ts';
import type {
  ContainerConfig,
  ExecOptions,
  ExecResult,
  HandlerFeatures,
  Runtime,
  RuntimeEvent,
  RuntimeState,
  SandboxConfig,
  SandboxState,
} from '../runtime.ts';

export class HandlerRuntimes implements Runtime {
  readonly #runtimes: readonly Runtime[];
  readonly handlers: readonly string[];
  /** Who was last seen to have a sandbox or container. */
  readonly #owners = new Map<string, Runtime>();

  constructor(runtimes: readonly Runtime[]) {
    this.handlers = runtimes.flatMap(({ handlers = [] }) => handlers);
    assert(runtimes[0]?.handlers?.includes(''), 'the first runtime of a node has the default handler');
    assert(new Set(this.handlers).size === this.handlers.length, 'every handler has one runtime');
    this.#runtimes = runtimes;
  }

  get name(): string {
    return this.#runtimes[0]!.name;
  }
  get version(): string {
    return this.#runtimes[0]!.version;
  }
  get needsMounts(): boolean {
    return this.#runtimes.some(({ needsMounts }) => needsMounts);
  }

  featuresOf(handler: string): HandlerFeatures | undefined {
    return this.#runtimes.find(({ handlers }) => handlers?.includes(handler))?.featuresOf?.(handler);
  }

  async runSandbox(config: SandboxConfig): Promise<SandboxState> {
    const { handler = '' } = config;
    const runtime = this.#runtimes.find(({ handlers }) => handlers?.includes(handler));
    if (!runtime) throw new Error(`no runtime for ${JSON.stringify(handler)} is configured`);
    const sandbox = await runtime.runSandbox(config);
    this.#owners.set(sandbox.id, runtime);
    return sandbox;
  }
  async stopSandbox(id: string, options?: { readonly keepsAddress?: boolean }): Promise<void> {
    await (await this.#find(id))?.stopSandbox(id, options);
  }
  async removeSandbox(id: string): Promise<void> {
    await (await this.#find(id))?.removeSandbox(id);
  }
  async createContainer(sandboxId: string, config: ContainerConfig): Promise<string> {
    const runtime = await this.#get(sandboxId);
    const id = await runtime.createContainer(sandboxId, config);
    this.#owners.set(id, runtime);
    return id;
  }
  async start(id: string): Promise<void> {
    await (await this.#get(id)).start(id);
  }
  async stop(id: string, graceSeconds: number): Promise<void> {
    await (await this.#find(id))?.stop(id, graceSeconds);
  }
  async remove(id: string): Promise<void> {
    await (await this.#find(id))?.remove(id);
  }
  async update(id: string, resources: ContainerConfig['resources']): Promise<void> {
    await (await this.#get(id)).update(id, resources);
  }
  async exec(id: string, options: ExecOptions): Promise<ExecResult> {
    return (await this.#get(id)).exec(id, options);
  }
  async attach(id: string, options: Parameters<Runtime['attach']>[1]): Promise<void> {
    await (await this.#get(id)).attach(id, options);
  }
  async portForward(sandboxId: string, port: number): Promise<Duplex> {
    return (await this.#get(sandboxId)).portForward(sandboxId, port);
  }
  async reopenLog(id: string): Promise<void> {
    await (await this.#get(id)).reopenLog(id);
  }

  async snapshot(podUid?: string): Promise<RuntimeState> {
    const states = await Promise.all(this.#runtimes.map(runtime => runtime.snapshot(podUid)));
    if (podUid === undefined) this.#owners.clear();
    for (const [i, state] of states.entries())
      for (const { id } of [...state.sandboxes, ...state.containers]) this.#owners.set(id, this.#runtimes[i]!);
    return {
      sandboxes: states.flatMap(({ sandboxes }) => sandboxes),
      containers: states.flatMap(({ containers }) => containers),
    };
  }

  async *events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    yield* merged(this.#runtimes.map(runtime => runtime.events(signal)));
  }

  async #find(id: string): Promise<Runtime | undefined> {
    if (!this.#owners.has(id)) await this.snapshot();
    return this.#owners.get(id);
  }
  async #get(id: string): Promise<Runtime> {
    const runtime = await this.#find(id);
    if (!runtime) throw notFound({ group: '', resource: 'containers' }, id);
    return runtime;
  }
}

async function* merged<T>(sources: readonly AsyncIterable<T>[]): AsyncIterable<T> {
  const next = (iterator: AsyncIterator<T>) => iterator.next().then(result => ({ iterator, result }));
  const waiting = new Map<AsyncIterator<T>, ReturnType<typeof next>>();
  for (const source of sources) {
    const iterator = source[Symbol.asyncIterator]();
    waiting.set(iterator, next(iterator));
  }
  try {
    while (waiting.size > 0) {
      const { iterator, result } = await Promise.race(waiting.values());
      if (result.done) waiting.delete(iterator);
      else {
        waiting.set(iterator, next(iterator));
        yield result.value;
      }
    }
  } finally {
    for (const iterator of waiting.keys()) void iterator.return?.();
  }
}
