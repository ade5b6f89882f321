/**
 * Network policies of one node: follows policies, namespaces and pods, and keeps the kernel's table at what they say for the
 * pods here. While no pod of this node is under a policy there is no table, and packets cost nothing.
 * Invariants: a pod has no link before `admit` has resolved, that is before the kernel knows every policy that was there when
 * the pod was made, however late the watches are; without the API server it waits. The table outlives this process, and
 * nothing in it changes before policies, namespaces and pods have been listed.
 */

import type { Namespace, Pod as PodObject } from '../../api/core/v1.gen.ts';
import { keyOf } from '../../api/meta.ts';
import type { NetworkPolicy } from '../../api/networking/v1.gen.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { type Random, systemRandom } from '../../base/random.ts';
import { Client } from '../../client/client.ts';
import { Informer, type InformerFactory } from '../../client/informer.ts';
import { NAMESPACES, NETWORK_POLICIES, PODS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { holds } from './address-blocks.ts';
import { ClusterPolicies } from './cluster-policies.ts';
import { connectedAddresses } from './connected-addresses.ts';
import { DomainNames } from './domain-names.ts';
import { KernelTable, type NodeRanges } from './kernel-table.ts';
import { factsOf, sameFacts, slimPod, takesPart } from './pod-facts.ts';
import { type NodeAlias, PolicyModel } from './policy-model.ts';
import { type BlockPeer, idOf, readNetworkPolicy } from './statement.ts';

/** Between two transactions: a burst of changes becomes few. */
const PAUSE_MS = 5;
const CHECK_MS = 5000;
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 5000;
/** After that a pod's start fails, is told as an event, and is tried again. */
const ADMIT_WAIT_MS_MAX = 10_000;
const GONE_MAX = 1000;
const BY_UID = 'by-uid';

export interface NetworkPoliciesOptions {
  readonly nodeName: string;
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly namespace: NetnsRef;
  /** The link that pods' packets come in by. */
  readonly bridge: string;
  /** Addresses of a pod of this node, from before its link is made until after that is gone. */
  readonly addressesOf: (podUid: string) => readonly string[];
  /** Where addresses of names are kept. */
  readonly namesPath: string;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
}

export class NetworkPolicies {
  readonly #options: NetworkPoliciesOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #client: Client;
  readonly #kernel: KernelTable;
  readonly #model = new PolicyModel();
  readonly #policies: Informer<NetworkPolicy>;
  readonly #clusterPolicies: ClusterPolicies;
  readonly #namespaces: Informer<Namespace>;
  readonly #pods: Informer<PodObject>;
  /** Versions of what `admit` read, by `kind key`: older news from watches are passed over. */
  readonly #seen = new Map<string, bigint>();
  /** Labels of namespaces as the model has them, as JSON. */
  readonly #labels = new Map<string, string>();
  /** Uids of policies deleted lately: a list that `admit` asked for before must not bring them back. */
  readonly #gone = new Set<string>();
  /** Hears this node's DNS server. */
  readonly names: DomainNames;
  #anyPod: readonly BlockPeer[] = [];
  #ranges: NodeRanges = { podCidrs: [], served: [] };
  #following: AbortSignal | undefined;
  #followingPods = false;
  #armed: boolean;
  #stale = true;
  #pending = false;
  #wake: (() => void) | undefined;

  constructor(options: NetworkPoliciesOptions) {
    this.#options = options;
    this.#log = options.log.with({ component: 'policy' });
    this.#clock = options.clock ?? systemClock;
    this.#client = new Client(options.transport);
    this.#policies = options.informers.get<NetworkPolicy>(NETWORK_POLICIES);
    const { transport, informers, log } = options;
    this.names = new DomainNames({
      path: options.namesPath,
      changed: () => this.#namesChanged(),
      inUse: () => connectedAddresses(options.namespace),
      isPods: address => this.#anyPod.some(block => holds(block, address)),
      clock: this.#clock,
      log: this.#log,
    });
    this.#clusterPolicies = new ClusterPolicies({
      names: this.names,
      transport,
      informers,
      log,
      clock: this.#clock,
      isNews: (kind, policy) => this.#isNews(kind, policy),
      set: policy => {
        this.#model.setPolicy(policy);
        this.#followPods();
        this.#trigger();
      },
      remove: (id, uid) => this.#dropPolicy(id, uid),
    });
    // Not the shared ones: they begin with the first policy, and pods are kept slim.
    this.#namespaces = new Informer<Namespace>({ transport, of: NAMESPACES, log });
    this.#pods = new Informer<PodObject>({ transport, of: PODS, log, transform: slimPod });
    this.#pods.addIndex(BY_UID, pod => [pod.metadata.uid ?? '']);
    this.#kernel = new KernelTable({
      namespace: options.namespace,
      bridge: options.bridge,
      log: this.#log,
      random: options.random ?? systemRandom,
      onDamage: () => this.#repair(),
    });
    this.#armed = this.#kernel.exists();
  }

  /** Whether there is a policy, for whatever pods. */
  get isInUse(): boolean {
    return this.#model.policies().size > 0;
  }

  /** Nothing is programmed before `podCidrs` are known. `anyPod`: addresses that pods have, on whatever node. */
  setRanges({
    anyPod,
    aliases,
    ...own
  }: NodeRanges & { readonly anyPod: readonly BlockPeer[]; readonly aliases: readonly NodeAlias[] }): void {
    if (JSON.stringify(own) !== JSON.stringify(this.#ranges)) this.#stale = true;
    this.#ranges = own;
    this.#anyPod = anyPod;
    this.#model.setPodBlocks(anyPod);
    this.#model.setNodeAliases(aliases);
    this.#trigger();
  }

  /** Follows the API until the signal aborts; what is programmed stays. */
  async run(signal: AbortSignal): Promise<void> {
    this.#following = signal;
    signal.addEventListener('abort', () => this.#trigger(), { once: true });
    this.#policies.onChange(({ object, old }) => {
      if (!object) return this.#dropPolicy(idOf('NetworkPolicy', old!.metadata), old!.metadata.uid);
      this.#notePolicy(object);
      this.#followPods();
      this.#trigger();
    });
    this.#clusterPolicies.run(signal);
    void Promise.all([this.#policies.synced, this.#clusterPolicies.known]).then(() => this.#trigger());
    if (this.#armed) this.#followPods();
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      if (!this.#pending) await this.#idle();
      if (signal.aborted) break;
      this.#pending = false;
      try {
        this.#program();
        retryMs = RETRY_MS_MIN;
        await this.#clock.sleep(PAUSE_MS, signal);
      } catch (error) {
        this.#log.warn('network policies not programmed, retrying', { error: messageOf(error), retryMs });
        await this.#clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
        this.#pending = true;
      }
    }
    this.names.close();
    this.#kernel.close();
  }

  /**
   * Resolves when the kernel holds all that policies say about a pod that is about to get its link. Rejects when that
   * cannot be known.
   */
  async admit(pod: { readonly uid: string; readonly namespace: string; readonly name: string }): Promise<void> {
    const startMs = this.#clock.monotonic();
    await this.#soon(
      Promise.all([this.#policies.synced, this.#clusterPolicies.known]),
      'network policies are not known yet',
    );
    const [{ items }] = await Promise.all([
      this.#client.of<NetworkPolicy>(NETWORK_POLICIES).list(pod.namespace),
      this.#clusterPolicies.readAgain(),
    ]);
    for (const policy of items) if (policy.metadata.namespace === pod.namespace) this.#notePolicy(policy);
    if (this.#model.policies().size === 0 && !this.#armed) return;
    this.#followPods();
    const [object, namespace] = await Promise.all([
      this.#client.of<PodObject>(PODS).get(pod.namespace, pod.name),
      this.#client.of<Namespace>(NAMESPACES).get('', pod.namespace),
      this.#soon(Promise.all([this.#namespaces.synced, this.#pods.synced]), 'pods and namespaces are not known yet'),
    ]);
    if (object.metadata.uid !== pod.uid) throw new Error(`pod ${pod.namespace}/${pod.name} has been replaced`);
    this.#noteNamespace(namespace);
    this.#notePod(object);
    this.#program();
    admitSeconds().observe((this.#clock.monotonic() - startMs) / 1000);
  }

  /** The pod's link is gone; its address is closed until another pod has it. */
  release(podUid: string): void {
    if (!this.#followingPods) return;
    for (const pod of this.#pods.byIndex(BY_UID, podUid)) this.#notePod(pod);
    this.#trigger();
  }

  // At once: whoever asked has the answer next.
  #namesChanged(): void {
    this.#clusterPolicies.readNames();
    if (!this.#following || this.#following.aborted) return;
    try {
      this.#program();
    } catch (error) {
      this.#log.warn('addresses of names not programmed, retrying', { error: messageOf(error) });
      this.#trigger();
    }
  }

  // --- what the API says ---

  #notePolicy(policy: NetworkPolicy): void {
    if (this.#isNews('NetworkPolicy', policy)) this.#model.setPolicy(readNetworkPolicy(policy));
  }

  #dropPolicy(id: string, uid = ''): void {
    this.#gone.add(uid);
    const [oldest] = this.#gone;
    if (this.#gone.size > GONE_MAX) this.#gone.delete(oldest!);
    this.#model.removePolicy(id);
    this.#trigger();
  }

  // Its labels may be what a cluster-scoped policy selects by.
  #noteNamespace(namespace: Namespace): void {
    const { name, labels = {} } = namespace.metadata;
    if (!this.#isNews('Namespace', namespace)) return;
    const text = JSON.stringify(labels);
    if (this.#labels.get(name) === text) return;
    this.#labels.set(name, text);
    this.#model.setNamespace(name, labels);
  }

  #notePod(pod: PodObject): void {
    if (!this.#isNews('Pod', pod)) return;
    const local = pod.spec?.nodeName === this.#options.nodeName;
    const facts = factsOf(pod, local ? this.#options.addressesOf(pod.metadata.uid ?? '') : undefined);
    const known = this.#model.pod(facts.key);
    if (!takesPart(pod) || facts.ips.length === 0) {
      if (known) this.#model.removePod(facts.key);
    } else if (!known || !sameFacts(known, facts)) this.#model.setPod(facts, { local });
  }

  #isNews(
    kind: string,
    object: { readonly metadata: { readonly resourceVersion?: string; readonly uid?: string } },
  ): boolean {
    const { resourceVersion, uid } = object.metadata;
    if (uid && this.#gone.has(uid)) return false;
    if (!resourceVersion || !/^\d+$/.test(resourceVersion)) return true;
    const [key, version] = [`${kind} ${uid}`, BigInt(resourceVersion)];
    if (version < (this.#seen.get(key) ?? 0n)) return false;
    this.#seen.set(key, version);
    return true;
  }

  // Pods and namespaces matter from the first policy on.
  #followPods(): void {
    if (this.#followingPods || !this.#following) return;
    this.#followingPods = true;
    this.#namespaces.onChange(({ object, old }) => {
      if (object) this.#noteNamespace(object);
      else {
        this.#seen.delete(`Namespace ${old!.metadata.uid}`);
        this.#labels.delete(old!.metadata.name);
        this.#model.setNamespace(old!.metadata.name, undefined);
      }
      this.#trigger();
    });
    this.#pods.onChange(({ object, old }) => {
      if (object) this.#notePod(object);
      else {
        this.#seen.delete(`Pod ${old!.metadata.uid}`);
        if (this.#model.pod(keyOf(old!))?.uid === old!.metadata.uid) this.#model.removePod(keyOf(old!));
      }
      this.#trigger();
    });
    for (const informer of [this.#namespaces, this.#pods]) {
      void informer.run(this.#following);
      void informer.synced.then(() => this.#trigger());
    }
  }

  // --- what the kernel is told ---

  #program(): void {
    if (this.#ranges.podCidrs.length === 0 || !this.#policies.hasSynced || !this.#clusterPolicies.isKnown) return;
    if (this.#followingPods && !(this.#namespaces.hasSynced && this.#pods.hasSynced)) return;
    const startMs = this.#clock.monotonic();
    this.#model.settle();
    const wanted = this.#model.isolates();
    if (!wanted && !this.#armed) return;
    if (!wanted) {
      this.#kernel.remove();
      this.#armed = false;
      this.#stale = true;
      this.#model.table.takeChanges();
      this.#log.info('no pod of this node is under a network policy any more');
      return;
    }
    if (!this.#stale) {
      const changes = this.#model.table.takeChanges();
      if (changes.length === 0) return;
      try {
        this.#kernel.change(changes);
      } catch (error) {
        this.#log.warn('change of policies refused by the kernel, programming everything', { error: messageOf(error) });
        this.#stale = true;
      }
    }
    if (this.#stale) {
      this.#kernel.rebuild(this.#model.table, this.#ranges);
      this.#model.table.takeChanges();
      this.#stale = false;
      this.#armed = true;
    }
    programSeconds().observe((this.#clock.monotonic() - startMs) / 1000);
  }

  // At once, not in turn: pods are cut off meanwhile.
  #repair(): void {
    if (!this.#armed || !this.#kernel.takeDamage()) return;
    this.#log.warn('the table of network policies was changed by somebody else, made anew');
    repairs().add();
    this.#stale = true;
    try {
      this.#program();
    } catch (error) {
      this.#log.warn('table of network policies not repaired, retrying', { error: messageOf(error) });
      this.#trigger();
    }
  }

  #trigger(): void {
    this.#pending = true;
    this.#wake?.();
  }

  async #idle(): Promise<void> {
    while (!this.#pending) {
      await new Promise<void>(resolve => {
        const timer = this.#clock.after(CHECK_MS, resolve, { background: true });
        this.#wake = () => {
          timer.cancel();
          resolve();
        };
      });
      this.#wake = undefined;
      // What no notification told of: the routing rules, for one.
      if (!this.#pending && this.#armed && !this.#stale) this.#check();
    }
  }

  #check(): void {
    try {
      this.#repair();
      this.#kernel.guard(this.#ranges.podCidrs);
    } catch (error) {
      this.#log.warn('network policies not checked', { error: messageOf(error) });
    }
  }

  async #soon(promise: Promise<unknown>, why: string): Promise<void> {
    const waiting = new AbortController();
    const late = this.#clock.sleep(ADMIT_WAIT_MS_MAX, waiting.signal).then(() => {
      if (!waiting.signal.aborted) throw new Error(why);
    });
    try {
      await Promise.race([promise, late]);
    } finally {
      waiting.abort();
    }
  }
}

const admitSeconds = () =>
  metrics.histogram(
    'coxswain_network_policy_admit_seconds',
    'Time until the kernel knows the policies of a new pod.',
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5],
  );
const programSeconds = () =>
  metrics.histogram(
    'coxswain_network_policy_program_seconds',
    'Time to bring one change of policies, namespaces or pods into the kernel.',
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1],
  );
const repairs = () =>
  metrics.counter(
    'coxswain_network_policy_repairs_total',
    'How often the table was made anew because somebody else changed it.',
  );
