/**
 * The cluster's side of ingress, in the server process: makes the Service in front of the data planes once there is an Ingress of
 * ours, keeps its EndpointSlices at the nodes that have one, writes addresses into Ingresses, and tells by events what could not be
 * honoured. It refuses to touch Ingresses of other controllers.
 */

import type { Node, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { semanticEqual } from '../api/machinery/equality.ts';
import { keyOf } from '../api/meta.ts';
import type { Ingress, IngressLoadBalancerIngress } from '../api/networking/v1.gen.ts';
import type { Clock } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Client } from '../client/client.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { ENDPOINT_SLICES, INGRESSES, NODES, SERVICES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { WorkQueue } from '../client/work-queue.ts';
import { DATA_PLANE_ANNOTATION, HTTP_PORT, HTTPS_PORT, SERVICE_NAME, SERVICE_NAMESPACE } from './ingress-service.ts';
import { IngressSource } from './ingress-source.ts';
import type { Finding } from './route-table.ts';
import { ServiceEndpoints } from './service-endpoints.ts';

export interface IngressControllerOptions {
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly events: EventRecorder;
  /** Makes this machine able to run a data plane; rejects with what to do when it cannot. Called until it works. */
  readonly prepare: () => Promise<void>;
  readonly log: Logger;
  readonly clock: Clock;
}

/** One key for each thing that is kept: a change of one does not wait for the others. */
const FRONT = 'front';
const FINDINGS = 'findings';
const STATUS = 'status/';
// An Ingress and its Service usually come together: what is only missing for a moment is not told.
const FINDINGS_DELAY_MS = 1000;
const SYNC_MS = 20;
/** Until a status that does not tell our addresses is corrected. */
const CORRECT_MS = 1000;
const WORKERS = 8;
const FAMILIES = ['IPv4', 'IPv6'] as const;

export class IngressController {
  readonly #options: IngressControllerOptions;
  readonly #source: IngressSource;
  readonly #endpoints: ServiceEndpoints;
  readonly #client: Client;
  readonly #ingresses: Informer<Ingress>;
  readonly #nodes: Informer<Node>;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #queue: WorkQueue;
  readonly #log: Logger;
  #told = new Set<string>();
  #isPrepared = false;

  constructor(options: IngressControllerOptions) {
    const { transport, informers, log, clock } = options;
    this.#options = options;
    this.#log = log.with({ controller: 'ingress' });
    this.#source = new IngressSource({ transport, informers, log: this.#log });
    this.#endpoints = new ServiceEndpoints(informers);
    this.#client = new Client(transport);
    this.#ingresses = informers.get<Ingress>(INGRESSES);
    this.#nodes = informers.get<Node>(NODES);
    this.#services = informers.get<Service>(SERVICES);
    this.#slices = informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#queue = new WorkQueue({ clock, name: 'ingress', retryMsMax: 60_000 });
  }

  async run(signal: AbortSignal): Promise<void> {
    const front = () => this.#queue.add(FRONT);
    this.#source.onChange(() => {
      front();
      this.#queue.addAfter(FINDINGS, FINDINGS_DELAY_MS);
    });
    this.#ingresses.onChange(({ object, old }) => {
      if (object && old && !semanticEqual(object.status, old.status)) this.#correctStatus(object);
    });
    this.#endpoints.onChange(service => {
      if (service === `${SERVICE_NAMESPACE}/${SERVICE_NAME}`) front();
      this.#queue.addAfter(FINDINGS, FINDINGS_DELAY_MS);
    });
    this.#services.onChange(({ object, old }) => {
      if (isFront((object ?? old)!)) front();
    });
    this.#nodes.onChange(({ object, old }) => {
      if (dataPlaneOf(object) !== dataPlaneOf(old) || isReady(object) !== isReady(old)) front();
    });
    this.#source.start(signal);
    await this.#queue.run(
      {
        workers: WORKERS,
        process: key => this.#reconcile(key),
        failed: (key, error) => this.#log.warn('ingress is not in order yet', { key, error: messageOf(error) }),
      },
      signal,
    );
  }

  #reconcile(key: string): Promise<void> {
    if (key === FRONT) return this.#keepFront();
    if (key === FINDINGS) return this.#tell();
    return this.#putStatus(key.slice(STATUS.length));
  }

  async #keepFront(): Promise<void> {
    const ours = this.#source.ours();
    if (!ours || !this.#services.hasSynced || !this.#slices.hasSynced || !this.#nodes.hasSynced) {
      if (ours) this.#queue.addAfter(FRONT, SYNC_MS);
      return;
    }
    if (ours.length > 0) {
      await this.#prepare(ours.map(({ ingress }) => ingress));
      await this.#ensureService();
    }
    for (const family of FAMILIES) await this.#putSlice(family);
    const addresses = this.#addresses();
    for (const { ingress } of ours) this.#correctStatus(ingress, addresses);
  }

  #correctStatus(ingress: Ingress, addresses = this.#addresses()): void {
    if (!this.#source.isOurs(ingress)) return;
    const told = ingress.status?.loadBalancer?.ingress ?? [];
    if (semanticEqual(told, addresses)) return;
    // Whoever writes another status may be about to do more: no chase of two writers.
    if (told.length > 0) this.#queue.addAfter(STATUS + keyOf(ingress), CORRECT_MS);
    else this.#queue.add(STATUS + keyOf(ingress));
  }

  async #prepare(ingresses: readonly Ingress[]): Promise<void> {
    if (this.#isPrepared) return;
    try {
      await this.#options.prepare();
      this.#isPrepared = true;
    } catch (error) {
      for (const ingress of ingresses)
        this.#options.events.event(ingress, 'Warning', 'DataPlaneMissing', messageOf(error));
      throw error;
    }
  }

  async #ensureService(): Promise<void> {
    if (this.#services.get(`${SERVICE_NAMESPACE}/${SERVICE_NAME}`)) return;
    try {
      await this.#client.of<Service>(SERVICES).create({
        apiVersion: 'v1',
        kind: 'Service',
        metadata: {
          name: SERVICE_NAME,
          namespace: SERVICE_NAMESPACE,
          labels: { 'app.kubernetes.io/name': 'coxswain-ingress' },
        },
        spec: {
          type: 'LoadBalancer',
          // Keeps the addresses of clients.
          externalTrafficPolicy: 'Local',
          ipFamilyPolicy: 'PreferDualStack',
          ports: [
            { name: 'http', port: 80, targetPort: HTTP_PORT, protocol: 'TCP' },
            { name: 'https', port: 443, targetPort: HTTPS_PORT, protocol: 'TCP' },
          ],
        },
      });
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
    }
  }

  async #putSlice(family: (typeof FAMILIES)[number]): Promise<void> {
    const client = this.#client.of<EndpointSlice>(ENDPOINT_SLICES);
    const name = `${SERVICE_NAME}-${family.toLowerCase()}`;
    const known = this.#slices.get(`${SERVICE_NAMESPACE}/${name}`);
    const endpoints = [...this.#nodes.values()]
      .filter(node => dataPlaneOf(node) !== undefined)
      .flatMap(node => {
        const address = addressOf(node, family);
        const ready = isReady(node);
        return address === undefined
          ? []
          : [
              {
                addresses: [address],
                nodeName: node.metadata.name,
                conditions: { ready, serving: ready, terminating: false },
              },
            ];
      })
      .sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1));
    if (!known && endpoints.length === 0) return;
    const slice: EndpointSlice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name,
        namespace: SERVICE_NAMESPACE,
        labels: {
          'kubernetes.io/service-name': SERVICE_NAME,
          'endpointslice.kubernetes.io/managed-by': 'ingress-controller.coxswain.dev',
        },
      },
      addressType: family,
      ports: [
        { name: 'http', port: HTTP_PORT, protocol: 'TCP' },
        { name: 'https', port: HTTPS_PORT, protocol: 'TCP' },
      ],
      endpoints,
    };
    if (!known) return void (await client.create(slice));
    if (semanticEqual(known.endpoints ?? [], endpoints)) return;
    await client.update({ ...slice, metadata: { ...known.metadata, ...slice.metadata } });
  }

  #addresses(): IngressLoadBalancerIngress[] {
    const service = this.#services.get(`${SERVICE_NAMESPACE}/${SERVICE_NAME}`);
    return (service?.status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ({
      ...(ip ? { ip } : {}),
      ...(hostname ? { hostname } : {}),
    }));
  }

  async #putStatus(key: string): Promise<void> {
    const ingress = this.#source.ingress(key);
    const addresses = this.#addresses();
    if (!ingress || semanticEqual(ingress.status?.loadBalancer?.ingress ?? [], addresses)) return;
    const { namespace = '', name } = ingress.metadata;
    try {
      await this.#client.of<Ingress>(INGRESSES).patchStatus(namespace, name, {
        status: { loadBalancer: { ingress: addresses } },
      });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  /** Each finding once, for as long as it holds. */
  async #tell(): Promise<void> {
    if (!this.#endpoints.hasSynced) return;
    const state = this.#source.state();
    if (!state) return;
    const findings: Finding[] = [...state.findings];
    for (const { service, ingress } of state.table.routes.values()) {
      const problem = service && this.#endpoints.of(service).problem;
      if (problem) findings.push({ ingress, reason: 'BackendNotFound', message: `${problem}; requests get 503` });
    }
    const told = new Set<string>();
    for (const { ingress: key, reason, message } of findings) {
      const ingress = this.#source.ingress(key);
      if (!ingress) continue;
      const id = `${ingress.metadata.uid} ${reason} ${message}`;
      if (!told.has(id) && !this.#told.has(id)) this.#options.events.event(ingress, 'Warning', reason, message);
      told.add(id);
    }
    this.#told = told;
  }
}

function isFront({ metadata }: Service): boolean {
  return metadata.namespace === SERVICE_NAMESPACE && metadata.name === SERVICE_NAME;
}

function dataPlaneOf(node: Node | undefined): string | undefined {
  return node?.metadata.annotations?.[DATA_PLANE_ANNOTATION];
}

function isReady(node: Node | undefined): boolean {
  return node?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

function addressOf(node: Node, family: (typeof FAMILIES)[number]): string | undefined {
  return node.status?.addresses?.find(
    ({ type, address }) => type === 'InternalIP' && address.includes(':') === (family === 'IPv6'),
  )?.address;
}
