/**
 * Resource claims of this node's pods: has their drivers prepare them before the pod's containers are made, and clean up once no pod
 * of the node uses them. Invariant: a claim is on disk before its driver is asked to prepare it, so a kubelet that comes later can
 * have it cleaned up; a pod gets only claims that are reserved for it.
 */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Container, Pod, ResourceStatus } from '../../api/core/v1.gen.ts';
import { EXTENDED_CLAIM, extendedRequestsOf } from '../../api/machinery/extended-resources.ts';
import { allClaimsOf } from '../../api/machinery/resource-claims.ts';
import type { ResourceClaim } from '../../api/resource/v1.gen.ts';
import { RESOURCE_CLAIMS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { claimsInUse } from '../metrics.ts';
import type { ClaimDrivers } from './claim-drivers.ts';
import type { DeviceHealth } from './device-health.ts';

interface ClaimedDevice {
  readonly requests: readonly string[];
  readonly cdi: readonly string[];
  readonly driver?: string;
  readonly pool?: string;
  readonly device?: string;
}

interface User {
  readonly podUid: string;
  readonly as: string;
  /** Of a claim that containers do not name: what each gets out of it. */
  readonly requests?: Readonly<Record<string, readonly string[]>>;
}

interface Prepared {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly drivers: readonly string[];
  /** Pods that use it, with the name by which each does. */
  users: readonly User[];
  /** What the drivers said; empty until they have. */
  devices: readonly ClaimedDevice[];
  isReady: boolean;
}

const CALL_MS_MAX = 45_000;

export class PodClaims {
  readonly #path: string;
  readonly #transport: Transport;
  readonly #drivers: ClaimDrivers;
  readonly #health: DeviceHealth | undefined;
  #claims: Prepared[];

  constructor(options: {
    readonly path: string;
    readonly transport: Transport;
    readonly drivers: ClaimDrivers;
    readonly health?: DeviceHealth;
  }) {
    this.#health = options.health;
    this.#path = options.path;
    this.#transport = options.transport;
    this.#drivers = options.drivers;
    this.#claims = load(this.#path);
    this.#tell();
  }

  /** Rejects while the pod's claims are not to be had; repeated calls do only what is missing. */
  async prepare(pod: Pod): Promise<void> {
    for (const { name: as, claim } of allClaimsOf(pod)) {
      if (claim === null) continue;
      if (claim === undefined) throw new Error(`resource claim ${as} is not made yet`);
      await this.#prepare(pod, { as, name: claim });
    }
  }
  async #prepare(pod: Pod, { as, name }: { readonly as: string; readonly name: string }): Promise<void> {
    const { namespace = '', uid: podUid = '' } = pod.metadata;
    const mine = this.#claims.find(one => one.users.some(user => user.podUid === podUid && user.as === as));
    if (mine?.isReady) return;
    const { metadata, status } = (await this.#transport.get({
      of: RESOURCE_CLAIMS,
      namespace,
      name,
    })) as ResourceClaim;
    if (!status?.allocation) throw new Error(`ResourceClaim ${name}: not allocated`);
    if (!status.reservedFor?.some(one => one.uid === podUid))
      throw new Error(`ResourceClaim ${name}: pod ${pod.metadata.name} (${podUid}) is not allowed to use it`);
    const uid = metadata.uid!;
    const drivers = [...new Set((status.allocation.devices?.results ?? []).map(({ driver }) => driver))];
    let prepared = this.#claims.find(one => one.uid === uid);
    if (!prepared) {
      prepared = { uid, namespace, name, drivers, users: [], devices: [], isReady: false };
      this.#claims.push(prepared);
    }
    if (!prepared.users.some(user => user.podUid === podUid && user.as === as))
      prepared.users = [
        ...prepared.users,
        { podUid, as, ...(as === EXTENDED_CLAIM ? { requests: extendedRequestsOf(pod) } : {}) },
      ];
    this.#save();
    if (prepared.isReady) return;
    const devices: ClaimedDevice[] = [];
    for (const driver of drivers) {
      const { claims } = await this.#drivers
        .driver(driver)
        .call('prepare', { claims: [{ namespace, uid, name }] }, { deadlineMs: CALL_MS_MAX });
      const answer = claims.find(one => one.key === uid)?.value;
      if (!answer) throw new Error(`NodePrepareResources skipped claim ${namespace}/${name}`);
      if (answer.error) throw new Error(`NodePrepareResources failed for claim ${namespace}/${name}: ${answer.error}`);
      for (const { requestNames = [], cdiDeviceIds = [], poolName = '', deviceName = '' } of answer.devices ?? [])
        devices.push({ requests: requestNames, cdi: cdiDeviceIds, driver, pool: poolName, device: deviceName });
    }
    prepared.devices = devices;
    prepared.isReady = true;
    this.#save();
  }

  /** CDI names of what a container claims. */
  cdiOf(podUid: string, container: Container): string[] {
    return this.ofContainer(podUid, container).flatMap(({ devices }) => devices.flatMap(({ cdi }) => cdi));
  }
  /** Claims of a container, with those of their devices that it asks for. */
  ofContainer(podUid: string, container: Container): Pick<Prepared, 'name' | 'namespace' | 'devices'>[] {
    const unnamed = this.#claims
      .flatMap(({ users }) => users)
      .filter(user => user.podUid === podUid)
      .flatMap(({ as, requests }) => (requests?.[container.name] ?? []).map(request => ({ name: as, request })));
    return [...(container.resources?.claims ?? []), ...unnamed].flatMap(asked => this.#asked(podUid, asked) ?? []);
  }
  #asked(podUid: string, { name: as, request }: { readonly name: string; readonly request?: string }) {
    const claim = this.#claims.find(one => one.users.some(user => user.podUid === podUid && user.as === as));
    if (!claim) return undefined;
    const isAsked = ({ requests }: ClaimedDevice) =>
      !request || requests.length === 0 || requests.some(one => one === request || one.startsWith(`${request}/`));
    return { name: claim.name, namespace: claim.namespace, devices: claim.devices.filter(isAsked) };
  }
  /** For the container's status. */
  health(podUid: string, container: Container): ResourceStatus[] {
    return (container.resources?.claims ?? []).flatMap(asked => {
      const devices = this.#asked(podUid, asked)?.devices ?? [];
      if (devices.length === 0) return [];
      const resources = devices.map(({ cdi, driver = '', pool = '', device = '' }) => ({
        resourceID: cdi[0] ?? `${driver}/${pool}/${device}`,
        ...this.#health?.of(driver, pool, device),
      }));
      return [{ name: `claim:${asked.name}${asked.request ? `/${asked.request}` : ''}`, resources }];
    });
  }
  /** Pods that use devices of the driver. */
  usersOf(driver: string): ReadonlySet<string> {
    const claims = this.#claims.filter(({ drivers }) => drivers.includes(driver));
    return new Set(claims.flatMap(({ users }) => users.map(({ podUid }) => podUid)));
  }

  /** The pod is over. Rejects when a driver could not clean up: to be tried again. */
  async release(podUid: string): Promise<void> {
    for (const claim of [...this.#claims]) {
      if (!claim.users.some(user => user.podUid === podUid)) continue;
      const others = claim.users.filter(user => user.podUid !== podUid);
      if (others.length === 0) await this.#unprepare(claim);
      claim.users = others;
      if (others.length === 0) this.#claims = this.#claims.filter(one => one !== claim);
      this.#save();
    }
  }
  /** Pods that have claims here. */
  get users(): ReadonlySet<string> {
    return new Set(this.#claims.flatMap(({ users }) => users.map(({ podUid }) => podUid)));
  }

  async #unprepare({ uid, namespace, name, drivers }: Prepared): Promise<void> {
    for (const driver of drivers) {
      const { claims } = await this.#drivers
        .driver(driver)
        .call('unprepare', { claims: [{ namespace, uid, name }] }, { deadlineMs: CALL_MS_MAX });
      const error = claims.find(one => one.key === uid)?.value?.error;
      if (error) throw new Error(`NodeUnprepareResources failed for claim ${namespace}/${name}: ${error}`);
    }
  }
  #save(): void {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o750 });
    writeFileSync(`${this.#path}.new`, JSON.stringify(this.#claims), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
    this.#tell();
  }
  #tell(): void {
    const prepared = this.#claims.filter(({ isReady }) => isReady);
    claimsInUse.clear();
    claimsInUse.set(prepared.length, '<any>');
    for (const driver of new Set(prepared.flatMap(({ drivers }) => drivers)))
      claimsInUse.set(prepared.filter(({ drivers }) => drivers.includes(driver)).length, driver);
  }
}

function load(path: string): Prepared[] {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Prepared[];
  } catch {
    return [];
  }
}
