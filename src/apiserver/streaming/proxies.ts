/**
 * `pods/proxy`, `services/proxy` and `nodes/proxy`: any HTTP request, or upgrade, to a pod, to one ready endpoint of a
 * Service, or to a node's kubelet. It reaches only addresses that the cluster's own objects name, and none that is
 * loopback, link-local or multicast.
 */

import * as http from 'node:http';
import * as https from 'node:https';
import { type Duplex, pipeline, type Readable, type Transform } from 'node:stream';
import * as tls from 'node:tls';
import { createDeflate, createGunzip, createGzip, createInflate } from 'node:zlib';
import type { Pod, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { badRequest, notFound, serviceUnavailable } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { ENDPOINT_SLICES, NODES, PODS, SERVICES } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { ConnectContext, ConnectHandler, Reader } from '../request.ts';
import { connectTcp, dialText, type Endpoint, isProxyable } from './dial.ts';
import { HtmlLinks } from './html-links.ts';
import { type KubeletConnections, plainFailure } from './kubelet-connection.ts';
import { copyBody, forwardedHeaders, requestHead, sendBody, tunnel } from './tunnel.ts';

export interface ProxiesOptions {
  readonly reader: () => Reader;
  readonly kubelets: KubeletConnections;
  readonly random: Random;
  /** For tests; the default refuses loopback and the like. */
  readonly isProxyable?: (address: string) => boolean;
}

interface ProxyTarget extends Endpoint {
  readonly scheme: 'http' | 'https';
  /** With the API server's client certificate. */
  readonly kubelet: boolean;
}

interface Reference {
  readonly scheme: 'http' | 'https';
  readonly name: string;
  readonly port: string;
}

export function proxies(options: ProxiesOptions): ConnectHandler[] {
  const handler = (
    of: ResourceId,
    locate: (reference: Reference, namespace: string) => ProxyTarget,
  ): ConnectHandler => ({
    of,
    subresource: 'proxy',
    async handle(context) {
      const { name, namespace } = context.attributes;
      const target = locate(parseReference(of, name), namespace);
      if (!(options.isProxyable ?? isProxyable)(target.host)) throw badRequest('address not allowed');
      await forward(options.kubelets, context, target);
    },
  });
  return [
    handler(PODS, ({ scheme, name, port }, namespace) => {
      const pod = options.reader().get(PODS, namespace, name) as Pod | undefined;
      if (!pod) throw notFound(PODS, name);
      const declared = pod.spec?.containers.find(container => container.ports?.length)?.ports?.[0]?.containerPort;
      return {
        scheme,
        host: pod.status?.podIPs?.[0]?.ip ?? pod.status?.podIP ?? '',
        port: portNumber(port) ?? declared ?? (scheme === 'https' ? 443 : 80),
        kubelet: false,
      };
    }),
    handler(SERVICES, (reference, namespace) => ({
      ...pickEndpoint(options, reference, namespace),
      scheme: reference.scheme,
      kubelet: false,
    })),
    handler(NODES, ({ scheme, name, port }) => {
      const kubelet = options.kubelets.locate(name);
      const asked = portNumber(port);
      if (asked === undefined || asked === kubelet.port) return { ...kubelet, scheme: 'https', kubelet: true };
      return { scheme, host: kubelet.host, port: asked, kubelet: false };
    }),
  ];
}

/** `name`, `name:port` or `scheme:name:port`. */
function parseReference(of: ResourceId, text: string): Reference {
  const parts = text.split(':');
  const [scheme, name, port] =
    parts.length === 3 ? (parts as [string, string, string]) : ['', parts[0]!, parts[1] ?? ''];
  if (parts.length > 3 || name === '' || !['', 'http', 'https'].includes(scheme))
    throw badRequest(`invalid ${of.resource.slice(0, -1)} request ${JSON.stringify(text)}`);
  return { scheme: scheme === 'https' ? 'https' : 'http', name, port };
}

function portNumber(text: string): number | undefined {
  if (text === '') return undefined;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65535) throw badRequest(`invalid port ${JSON.stringify(text)}`);
  return port;
}

/** A ready endpoint behind a port of a Service, by the port's number or name. Throws when there is none. */
export function pickEndpoint(
  { reader, random }: Pick<ProxiesOptions, 'reader' | 'random'>,
  { name, port }: Pick<Reference, 'name' | 'port'>,
  namespace: string,
): Endpoint {
  const service = reader().get(SERVICES, namespace, name) as Service | undefined;
  if (!service) throw notFound(SERVICES, name);
  let portName = port;
  if (/^\d+$/.test(port)) {
    const found = service.spec?.ports?.find(candidate => candidate.port === Number(port));
    if (!found)
      throw serviceUnavailable(`no service port ${JSON.stringify(port)} found for service ${JSON.stringify(name)}`);
    portName = found.name ?? '';
  }
  const candidates: Endpoint[] = [];
  for (const slice of reader().list(ENDPOINT_SLICES, namespace) as readonly EndpointSlice[]) {
    if (slice.metadata.labels?.['kubernetes.io/service-name'] !== name) continue;
    const match = slice.ports?.find(candidate => (candidate.name ?? '') === portName);
    if (!match?.port) continue;
    for (const { addresses, conditions } of slice.endpoints ?? [])
      if (conditions?.ready !== false && addresses[0]) candidates.push({ host: addresses[0], port: match.port });
  }
  if (candidates.length === 0) throw serviceUnavailable(`no endpoints available for service ${JSON.stringify(name)}`);
  return candidates[Math.floor(random.next() * candidates.length)]!;
}

async function forward(kubelets: KubeletConnections, context: ConnectContext, target: ProxyTarget): Promise<void> {
  const { req, res, socket, rest } = context;
  const url = req.url ?? '';
  const queryAt = url.indexOf('?');
  const query = queryAt < 0 ? '' : url.slice(queryAt);
  const ownPath = queryAt < 0 ? url : url.slice(0, queryAt);
  const method = req.method ?? 'GET';
  const host = `${target.host.includes(':') ? `[${target.host}]` : target.host}:${target.port}`;
  const path = (rest || '/') + query;
  if (socket) {
    const backend = await connectTo(kubelets, target);
    return tunnel(
      { socket, head: context.head },
      backend,
      requestHead({ method, path, host, headers: forwardedHeaders(req.headers, { upgrade: true }) }),
    );
  }
  if (!res) throw badRequest('nothing to answer on');
  if (rest === '' && (method === 'GET' || method === 'HEAD')) {
    // Relative links of the page behind need the slash.
    res.statusCode = 301;
    res.setHeader('location', `${ownPath}/${query}`);
    res.end();
    return;
  }
  const headers = forwardedHeaders(req.headers, { upgrade: false });
  const prefix = ownPath.slice(0, ownPath.length - rest.length);
  headers['x-forwarded-uri'] = ownPath;
  headers['x-forwarded-host'] = String(req.headers[':authority'] ?? req.headers.host ?? '');
  headers['x-forwarded-proto'] = 'https';
  headers['host'] = host;
  const reply = await new Promise<http.IncomingMessage | undefined>((resolve, reject) => {
    const options: http.RequestOptions = { method, path, headers };
    // A connection a request: a pod that comes back must not be met by a connection to the one before.
    const direct = { ...options, host: target.host, port: target.port, agent: false as const };
    const request = target.kubelet
      ? kubelets.request(target, options, resolve)
      : target.scheme === 'https'
        ? https.request({ ...direct, rejectUnauthorized: false }, resolve)
        : http.request(direct, resolve);
    request.once('error', error => reject(plainFailure(`error trying to reach service: ${dialText(target, error)}`)));
    res.once('close', () => {
      request.destroy();
      resolve(undefined);
    });
    sendBody(req, request);
  });
  if (!reply) return;
  res.statusCode = reply.statusCode ?? 502;
  const hasLinks = isHtml(reply.headers) && method !== 'HEAD';
  for (const [name, value] of Object.entries(forwardedHeaders(reply.headers, { upgrade: false }))) {
    if (hasLinks && name === 'content-length') continue;
    res.setHeader(
      name,
      name === 'location' ? relocated(String(value), { host, prefix }) : (value as string | string[]),
    );
  }
  if (!hasLinks) return copyBody(reply, res);
  const links = new HtmlLinks(url => relocated(url, { host, prefix }));
  const { open, close } = CODINGS[reply.headers['content-encoding'] ?? ''] ?? PLAIN;
  const steps = [reply, ...open(), links, ...close()];
  res.once('close', () => reply.destroy());
  // Whatever goes wrong on the way ends the last of them, and with it the reply.
  pipeline(steps, () => {});
  await copyBody(steps.at(-1) as Readable, res);
}

interface Coding {
  open(): Transform[];
  close(): Transform[];
}

const PLAIN: Coding = { open: () => [], close: () => [] };
/** By their content coding: how pages are read, and written again. Others pass as they are. */
const CODINGS: Readonly<Record<string, Coding>> = {
  '': PLAIN,
  gzip: { open: () => [createGunzip()], close: () => [createGzip()] },
  deflate: { open: () => [createInflate()], close: () => [createDeflate()] },
};

function isHtml(headers: http.IncomingHttpHeaders): boolean {
  return (
    /^text\/html\s*(;|$)/i.test(headers['content-type'] ?? '') &&
    Object.hasOwn(CODINGS, headers['content-encoding'] ?? '')
  );
}

async function connectTo(kubelets: KubeletConnections, target: ProxyTarget): Promise<Duplex> {
  if (target.kubelet) return kubelets.connect(target);
  const raw = await connectTcp(target);
  if (target.scheme === 'http') return raw;
  return new Promise((resolve, reject) => {
    const secure = tls.connect({ socket: raw, rejectUnauthorized: false });
    secure.once('secureConnect', () => resolve(secure));
    secure.once('error', error => {
      raw.destroy();
      reject(plainFailure(`error dialing backend: ${dialText(target, error)}`));
    });
  });
}

/** A redirect or link of the backend, as a path behind the proxy; those to elsewhere are left alone. */
function relocated(location: string, { host, prefix }: { host: string; prefix: string }): string {
  const own = new RegExp(`^https?://${host.replace(/[.[\]]/g, '\\$&')}(?=[/?#]|$)`);
  const path = location.replace(own, '');
  if (path === location && !(location.startsWith('/') && !location.startsWith('//'))) return location;
  if (path.startsWith(`${prefix}/`)) return path;
  return prefix + (path.startsWith('/') ? path : `/${path}`);
}
