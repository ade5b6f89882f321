/**
 * `metrics.k8s.io/v1beta1`, for `kubectl top` and autoscalers: what nodes and pods use now, asked of the kubelets (their
 * `/stats/summary`) when a client asks, and remembered for moments. Invariant: it shows only pods and nodes that are in the
 * store, with their labels. It keeps no history. An APIService that leads to another metrics server takes its place.
 */

import type { IncomingMessage } from 'node:http';
import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { parseLabelSelector } from '../../api/machinery/labels.ts';
import type { KubeObject } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { badRequest, messageOf, notFound } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { NODES, PODS } from '../../client/resources.ts';
import type { OwnExtension } from '../aggregation/aggregator.ts';
import { encodeBody, negotiate } from '../negotiation.ts';
import { finishObject, type ReplyContext } from '../reply.ts';
import type { Reader } from '../request.ts';
import { parsePath } from '../request-path.ts';
import { notAllowed, unknownResource } from '../routes.ts';
import type { KubeletConnections } from '../streaming/kubelet-connection.ts';

const GROUP = 'metrics.k8s.io';
const VERSION = 'v1beta1';
/** A rate is of the seconds before; asking more often would only shorten them. */
const FRESH_MS = 5000;
const SCRAPE_MS_MAX = 8000;
const SUMMARY_BYTES_MAX = 32 * 1024 * 1024;
/** What a kubelet's rates cover at least. */
const WINDOW = '10s';

interface Measured {
  readonly time?: string;
  readonly cpu?: { readonly time?: string; readonly usageNanoCores?: number };
  readonly memory?: { readonly workingSetBytes?: number };
}
interface Summary {
  readonly node?: Measured;
  readonly pods?: readonly (Measured & {
    readonly podRef: { readonly name: string; readonly namespace: string; readonly uid: string };
    readonly containers?: readonly (Measured & { readonly name: string })[];
  })[];
}
type PodSummary = NonNullable<Summary['pods']>[number];

export interface ResourceMetricsOptions {
  readonly reader: () => Reader;
  readonly kubelets: Pick<KubeletConnections, 'locate' | 'request'>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ResourceMetrics implements OwnExtension {
  readonly group = GROUP;
  readonly version = VERSION;
  readonly priority = 100;
  readonly resources = [discovered('nodes', 'NodeMetrics', false), discovered('pods', 'PodMetrics', true)];
  readonly #options: ResourceMetricsOptions;
  readonly #summaries = new Map<string, { readonly atMs: number; readonly summary: Promise<Summary | undefined> }>();

  constructor(options: ResourceMetricsOptions) {
    this.#options = options;
  }

  async answer(context: ReplyContext): Promise<void> {
    const { exchange } = context;
    const [path = '', search] = exchange.url.split('?', 2);
    const query = new URLSearchParams(search);
    const asked = parsePath(exchange.method, path, query);
    const wanted = negotiate(exchange.headers.accept, 'custom');
    const reply = async (value: unknown) =>
      finishObject(context, 200, wanted, [await encodeBody(value, wanted.format)]);
    if (!asked.resource) return reply(RESOURCE_LIST);
    if (!['nodes', 'pods'].includes(asked.resource) || asked.subresource) throw unknownResource();
    const isPods = asked.resource === 'pods';
    // A role of a namespace says nothing about nodes.
    if (isPods ? asked.name && !asked.namespace : asked.namespace) throw unknownResource();
    if (asked.verb !== 'get' && asked.verb !== 'list') throw notAllowed();
    const items = isPods
      ? await this.pods(asked.namespace, { name: asked.name, query })
      : await this.#nodes(asked.name, query);
    if (asked.name && items.length === 0) {
      const what = { group: GROUP, resource: asked.resource };
      throw notFound(what, isPods ? `${asked.namespace}/${asked.name}` : asked.name);
    }
    const kind = isPods ? 'PodMetrics' : 'NodeMetrics';
    const list = { kind: `${kind}List`, apiVersion: `${GROUP}/${VERSION}`, metadata: {}, items };
    return reply(wanted.as === 'Table' ? table(items) : asked.name ? items[0] : list);
  }

  async #nodes(name: string, query: URLSearchParams): Promise<MetricsObject[]> {
    const nodes = (this.#options.reader().list(NODES) as readonly Node[]).filter(chosen(query, name));
    const found = await Promise.all(
      nodes.map(async node => {
        const usage = usageOf((await this.#summary(node.metadata.name))?.node);
        return usage ? [metricsOf('NodeMetrics', node, { time: usage.time, usage: usage.usage })] : [];
      }),
    );
    return found.flat();
  }

  /** Of those that run and have been measured. */
  async pods(
    namespace: string,
    { name, query }: { readonly name: string; readonly query: URLSearchParams },
  ): Promise<MetricsObject[]> {
    const pods = (this.#options.reader().list(PODS, namespace) as readonly Pod[]).filter(
      pod => pod.spec.nodeName && pod.status?.phase === 'Running' && chosen(query, name)(pod),
    );
    const ofNodes = new Map<string, ReadonlyMap<string, PodSummary>>();
    await Promise.all(
      [...new Set(pods.map(pod => pod.spec.nodeName!))].map(async node => {
        const summary = await this.#summary(node);
        ofNodes.set(node, new Map((summary?.pods ?? []).map(pod => [pod.podRef.uid, pod])));
      }),
    );
    return pods.flatMap(pod => {
      const summary = ofNodes.get(pod.spec.nodeName!)?.get(pod.metadata.uid!);
      const containers = (summary?.containers ?? []).flatMap(one => {
        const found = usageOf(one);
        return found ? [{ name: one.name, ...found }] : [];
      });
      if (containers.length === 0) return [];
      return [
        metricsOf('PodMetrics', pod, {
          time: containers[0]!.time,
          containers: containers.map(({ name: container, usage }) => ({ name: container, usage })),
        }),
      ];
    });
  }

  #summary(node: string): Promise<Summary | undefined> {
    const { clock, log } = this.#options;
    const known = this.#summaries.get(node);
    if (known && clock.monotonic() - known.atMs < FRESH_MS) return known.summary;
    for (const [name, { atMs }] of this.#summaries)
      if (clock.monotonic() - atMs > FRESH_MS) this.#summaries.delete(name);
    const summary = this.#scrape(node).catch(error => {
      log.debug('a kubelet told no statistics', { node, error: messageOf(error) });
      return undefined;
    });
    this.#summaries.set(node, { atMs: clock.monotonic(), summary });
    return summary;
  }

  #scrape(node: string): Promise<Summary> {
    const { kubelets } = this.#options;
    const endpoint = kubelets.locate(node);
    return new Promise((resolve, reject) => {
      const answered = (reply: IncomingMessage) => {
        const parts: Buffer[] = [];
        let size = 0;
        reply.on('data', (part: Buffer) => {
          size += part.length;
          if (size > SUMMARY_BYTES_MAX) request.destroy(new Error('the summary is too large'));
          else parts.push(part);
        });
        reply.on('end', () => {
          const text = Buffer.concat(parts).toString();
          if (reply.statusCode !== 200) return reject(new Error(`status ${reply.statusCode}: ${text.slice(0, 200)}`));
          try {
            resolve(JSON.parse(text) as Summary);
          } catch (error) {
            reject(error as Error);
          }
        });
      };
      const signal = AbortSignal.timeout(SCRAPE_MS_MAX);
      const request = kubelets.request(endpoint, { method: 'GET', path: '/stats/summary', signal }, answered);
      request.once('error', reject);
      request.end();
    });
  }
}

interface ResourceUsage {
  readonly cpu: string;
  readonly memory: string;
}
export interface MetricsObject extends KubeObject {
  readonly timestamp: string;
  readonly window: string;
  readonly usage?: ResourceUsage;
  readonly containers?: readonly { readonly name: string; readonly usage: ResourceUsage }[];
}

function usageOf(measured: Measured | undefined): { time: string; usage: ResourceUsage } | undefined {
  const nano = measured?.cpu?.usageNanoCores;
  const bytes = measured?.memory?.workingSetBytes;
  if (nano === undefined || bytes === undefined) return undefined;
  return {
    time: measured?.cpu?.time ?? formatTime(0),
    usage: { cpu: `${nano}n`, memory: `${Math.ceil(bytes / 1024)}Ki` },
  };
}

function metricsOf(
  kind: string,
  of: KubeObject,
  { time, ...rest }: { readonly time: string } & Pick<MetricsObject, 'usage' | 'containers'>,
): MetricsObject {
  const { name, namespace, labels } = of.metadata;
  return {
    kind,
    apiVersion: `${GROUP}/${VERSION}`,
    metadata: {
      name,
      ...(namespace ? { namespace } : {}),
      creationTimestamp: time,
      ...(labels ? { labels } : {}),
    },
    timestamp: time,
    window: WINDOW,
    ...rest,
  };
}

function chosen(query: URLSearchParams, name: string): (object: KubeObject) => boolean {
  const labels = query.get('labelSelector');
  const fields = (query.get('fieldSelector') ?? '').split(',').filter(Boolean).map(requirement);
  const matches = labels ? parseLabelSelector(labels) : () => true;
  return object =>
    (name === '' || object.metadata.name === name) &&
    matches(object.metadata.labels) &&
    fields.every(({ field, value, isEqual }) => (object.metadata[field] === value) === isEqual);
}

function requirement(text: string): { field: 'name' | 'namespace'; value: string; isEqual: boolean } {
  const [, field, operator, value = ''] = /^metadata\.(name|namespace)(==?|!=)(.*)$/.exec(text) ?? [];
  if (!field) throw badRequest(`field label not supported: ${text.split(/[!=]/)[0]}`);
  return { field: field as 'name' | 'namespace', value, isEqual: operator !== '!=' };
}

function discovered(resource: string, kind: string, isNamespaced: boolean): object {
  return {
    resource,
    responseKind: { group: GROUP, version: VERSION, kind },
    scope: isNamespaced ? 'Namespaced' : 'Cluster',
    singularResource: resource.slice(0, -1),
    verbs: ['get', 'list'],
  };
}

const RESOURCE_LIST = {
  kind: 'APIResourceList',
  apiVersion: 'v1',
  groupVersion: `${GROUP}/${VERSION}`,
  resources: [
    { name: 'nodes', singularName: 'node', namespaced: false, kind: 'NodeMetrics', verbs: ['get', 'list'] },
    { name: 'pods', singularName: 'pod', namespaced: true, kind: 'PodMetrics', verbs: ['get', 'list'] },
  ],
};

const COLUMNS = ['Name', 'Cpu', 'Memory', 'Window'];

function table(items: readonly MetricsObject[]): object {
  const total = (item: MetricsObject, name: keyof ResourceUsage) =>
    (item.usage ? [item.usage] : (item.containers ?? []).map(one => one.usage)).reduce(
      (sum, usage) => sum + Number.parseInt(usage[name], 10),
      0,
    );
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: {},
    columnDefinitions: COLUMNS.map(name => ({
      name,
      type: 'string',
      format: name === 'Name' ? 'name' : '',
      description: '',
      priority: 0,
    })),
    rows: items.map(item => ({
      cells: [item.metadata.name, `${total(item, 'cpu')}n`, `${total(item, 'memory')}Ki`, item.window],
      object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: item.metadata },
    })),
  };
}
