/**
 * The node's sandboxes: namespaces pinned by files, shared memory, the pod network's address, and connections into them.
 * Invariant: a record is on disk before the thing it describes exists; a sandbox is ready only in the boot that made it, while
 * its folder and its address are there. It knows no containers: who stops or removes a sandbox has dealt with them.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { Socket, type SocketConstructorOpts } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { notFound } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { mountShm } from '../../sys/mount.ts';
import { type PinnedNamespace, pinNamespaces, tcpSocketInside } from '../../sys/namespaces.ts';
import { isAlive, type ProcessIdentity, sendSignal } from '../../sys/process.ts';
import { relabel } from '../../sys/selinux.ts';
import { pinUserNamespaces } from '../../sys/user-namespace.ts';
import type { PodNetwork, SandboxConfig, SandboxState } from '../runtime.ts';
import { type DefaultLabels, freeLevel, type Labels, labelsFor } from '../selinux.ts';
import type { RuntimeFolders } from './folders.ts';
import type { OciRuntimes } from './oci-runtime.ts';
import { holdProcesses } from './process-holder.ts';
import { RecordLog, type SandboxRecord } from './records.ts';

const HOLDER_POLL_MS = 5;
const HOLDER_END_MS_MAX = 5000;
const SHM_BYTES_DEFAULT = 64 * 1024 * 1024;

interface Surroundings {
  readonly folders: RuntimeFolders;
  readonly network: PodNetwork;
  readonly clock: Clock;
  readonly programs: OciRuntimes;
  /** See `bootIdentity`. */
  readonly boot: string;
  readonly random: Random;
  /** Absent where the kernel has no SELinux. */
  readonly selinux?: DefaultLabels | undefined;
}

export class Sandboxes {
  readonly #folders: RuntimeFolders;
  readonly #network: PodNetwork;
  readonly #clock: Clock;
  readonly #programs: OciRuntimes;
  readonly #boot: string;
  readonly #random: Random;
  readonly #selinux: DefaultLabels | undefined;
  readonly #log: RecordLog<SandboxRecord>;
  readonly #records = new Map<string, SandboxRecord>();

  constructor({ folders, network, clock, programs, boot, random, selinux }: Surroundings) {
    this.#random = random;
    this.#selinux = selinux;
    this.#programs = programs;
    this.#folders = folders;
    this.#network = network;
    this.#clock = clock;
    this.#boot = boot;
    this.#log = new RecordLog(folders.sandboxLog);
    for (const record of this.#log.load()) this.#records.set(record.id, record);
  }

  ids(): ReadonlySet<string> {
    return new Set(this.#records.keys());
  }
  all(): Iterable<SandboxRecord> {
    return this.#records.values();
  }
  find(id: string): SandboxRecord | undefined {
    return this.#records.get(id);
  }
  get(id: string): SandboxRecord {
    const record = this.#records.get(id);
    if (!record) throw notFound({ group: '', resource: 'sandboxes' }, id);
    return record;
  }
  /** The one of the same pod and attempt that this boot has made or begun. */
  like({ podUid, attempt }: SandboxConfig): SandboxRecord | undefined {
    const present = [...this.#records.values()].find(
      one => one.config.podUid === podUid && one.config.attempt === attempt,
    );
    return present && !present.stopped && present.boot === this.#boot ? present : undefined;
  }
  delete(id: string): void {
    this.#records.delete(id);
    this.#log.delete(id);
  }

  /** Only a record so far: `make` does the rest. */
  begin(config: SandboxConfig): SandboxRecord {
    const record: SandboxRecord = this.like(config) ?? {
      id: randomBytes(32).toString('hex'),
      config,
      createdMs: this.#clock.now(),
      boot: this.#boot,
      oci: this.#programs.forHandler(config.handler),
      stopped: false,
      ips: [],
      ...(this.#selinux ? { selinuxLevel: freeLevel(this.#levels(), this.#random) } : {}),
    };
    this.#log.save(record);
    this.#records.set(record.id, record);
    return record;
  }
  #levels(): ReadonlySet<string | undefined> {
    return new Set([...this.#records.values()].map(({ selinuxLevel }) => selinuxLevel));
  }
  /** Labels for what runs in the sandbox; undefined where the kernel has no SELinux. */
  labels({ config, selinuxLevel }: SandboxRecord, options = config.selinux): Required<Labels> | undefined {
    if (!this.#selinux || selinuxLevel === undefined) return undefined;
    return labelsFor(options, config.selinux?.level || selinuxLevel, this.#selinux);
  }

  /** May fail half-way: the caller then stops and deletes it. `config` may be newer than the record's. */
  async make(record: SandboxRecord, config: SandboxConfig): Promise<void> {
    const kinds: PinnedNamespace[] = [
      ...(config.hostNetwork ? [] : (['net', 'uts'] as const)),
      ...(config.hostIpc ? [] : (['ipc'] as const)),
    ];
    const folder = this.#folders.sandbox(record.id);
    const selinux = this.labels(record);
    if (!existsSync(folder)) {
      mkdirSync(folder, { mode: 0o711 });
      // Ports below 1024 and ping need no privilege in a network namespace that is the pod's own.
      const open: Record<string, string> = config.hostNetwork
        ? {}
        : { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' };
      const request = { folder, kinds, hostname: config.hostname, sysctls: { ...open, ...config.sysctls } };
      if (config.userIds) await pinUserNamespaces({ ...request, ids: config.userIds });
      else if (kinds.length) pinNamespaces(request);
      const shm = { sizeBytes: config.shmBytes ?? SHM_BYTES_DEFAULT, owner: config.userIds?.hostId ?? 0 };
      if (!config.hostIpc) {
        mountShm(join(folder, 'shm'), shm);
        if (selinux) await relabel(join(folder, 'shm'), selinux.file);
      }
    }
    if (config.shareProcesses && !record.holder) {
      const pin = (kind: PinnedNamespace) => (kinds.includes(kind) ? join(folder, kind) : undefined);
      const [network, ipc, uts] = [pin('net'), pin('ipc'), pin('uts')];
      const user = config.userIds && { path: join(folder, 'user'), ids: config.userIds };
      record.holder = await holdProcesses({
        oci: this.#programs.get(record.oci),
        id: record.id,
        folder,
        cgroupsPath: `${config.cgroupParent}/${record.id}`,
        namespaces: { ...(network ? { network } : {}), ...(ipc ? { ipc } : {}), ...(uts ? { uts } : {}) },
        ...(user ? { user } : {}),
        ...(selinux ? { selinux } : {}),
      });
      this.#log.save(record);
    }
    if (!config.hostNetwork) {
      const { ips } = await this.#network.attach({
        uid: config.podUid,
        namespace: config.namespace,
        name: config.name,
        netnsPath: join(folder, 'net'),
      });
      record.ips = ips;
      this.#log.save(record);
    }
  }

  async stop(record: SandboxRecord, options: { readonly keepsAddress?: boolean }): Promise<void> {
    if (!record.stopped) {
      record.stopped = true;
      this.#log.save(record);
    }
    if (record.holder) await this.#endHolder(record.holder);
    if (!record.config.hostNetwork && !options.keepsAddress && !this.#hasOtherReady(record))
      await this.#network.detach(record.config.podUid);
    this.#folders.removeSandbox(record.id);
  }

  // Its control group can go only after it.
  async #endHolder(holder: ProcessIdentity): Promise<void> {
    sendSignal(holder, 'SIGKILL');
    for (let waitedMs = 0; isAlive(holder) && waitedMs < HOLDER_END_MS_MAX; waitedMs += HOLDER_POLL_MS)
      await this.#clock.sleep(HOLDER_POLL_MS);
  }

  #hasOtherReady(record: SandboxRecord): boolean {
    return [...this.#records.values()].some(
      one => one !== record && one.config.podUid === record.config.podUid && !one.stopped && one.boot === this.#boot,
    );
  }

  state(record: SandboxRecord): SandboxState {
    const { id, config, createdMs, ips } = record;
    const isReady =
      !record.stopped &&
      record.boot === this.#boot &&
      existsSync(this.#folders.sandbox(id)) &&
      (!config.shareProcesses || (record.holder !== undefined && isAlive(record.holder))) &&
      (config.hostNetwork || ips.length > 0);
    return {
      id,
      podUid: config.podUid,
      namespace: config.namespace,
      name: config.name,
      attempt: config.attempt,
      ready: isReady,
      createdMs,
      ips,
      netnsPath: config.hostNetwork ? undefined : join(this.#folders.sandbox(id), 'net'),
    };
  }

  /** A connection to a port inside, by IPv4 and else by IPv6. */
  async dial(sandboxId: string, port: number): Promise<Duplex> {
    const record = this.get(sandboxId);
    const reach = (host: string) =>
      new Promise<Duplex>((resolve, reject) => {
        const options = { allowHalfOpen: true };
        // Node makes its socket a turn later, in the thread's own namespace; this one is made inside the pod's.
        const socket = record.config.hostNetwork
          ? new Socket(options)
          : new Socket({
              ...options,
              manualStart: true,
              fd: tcpSocketInside(join(this.#folders.sandbox(sandboxId), 'net'), host.includes(':') ? 6 : 4),
            } as SocketConstructorOpts);
        socket.once('error', reject);
        socket.connect({ host, port }, () => resolve(socket));
      });
    try {
      return await reach('127.0.0.1');
    } catch (error) {
      return reach('::1').catch(() => {
        throw error;
      });
    }
  }
}
