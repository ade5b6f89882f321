/**
 * Plays the API server for one pod, `default/p`: answers what kubectl asks before it streams, and tunnels upgrades and
 * logs to a kubelet, byte for byte.
 */

import { createServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:tls';
import type { KeyPair } from '../../src/apiserver/certificates/certificate.ts';

export interface ApiFront {
  readonly port: number;
  close(): void;
}

export interface ApiFrontOptions {
  readonly ca: string;
  readonly serving: KeyPair;
  readonly client: KeyPair;
  readonly kubeletPort: number;
  pod(): object;
}

const POD_RESOURCES = {
  kind: 'APIResourceList',
  groupVersion: 'v1',
  resources: [
    { name: 'pods', singularName: 'pod', namespaced: true, kind: 'Pod', verbs: ['get', 'list'], shortNames: ['po'] },
  ],
};

const REPLIES: Readonly<Record<string, object>> = {
  '/api': { kind: 'APIVersions', versions: ['v1'] },
  '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: [] },
  '/api/v1': POD_RESOURCES,
  '/version': { major: '1', minor: '36', gitVersion: 'v1.36.0' },
};

const KUBELET_PATHS = { exec: 'exec', attach: 'attach', portforward: 'portForward', log: 'containerLogs' } as const;

export async function startApiFront(options: ApiFrontOptions): Promise<ApiFront> {
  const { ca, serving, client, kubeletPort } = options;
  const toKubelet = { host: '127.0.0.1', port: kubeletPort, ca, cert: client.certificate, key: client.key };
  const translate = (target: string) => {
    const url = new URL(target, 'https://front');
    const match = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/(\w+)$/.exec(url.pathname);
    const kind = match && KUBELET_PATHS[match[3] as keyof typeof KUBELET_PATHS];
    if (!kind) return undefined;
    const container = kind === 'portForward' ? '' : `/${url.searchParams.get('container') ?? 'c'}`;
    return `/${kind}/${match[1]}/${match[2]}${container}${url.search}`;
  };
  const server = createServer({ key: serving.key, cert: serving.certificate }, (request, response) => {
    const path = (request.url ?? '').replace(/\?.*/, '');
    const target = translate(request.url ?? '');
    if (target) {
      const upstream = httpsRequest({ ...toKubelet, path: target }, reply => {
        response.writeHead(reply.statusCode ?? 500, reply.headers);
        response.flushHeaders();
        reply.pipe(response);
      });
      upstream.end();
      response.once('close', () => upstream.destroy());
      return;
    }
    const body = path === '/api/v1/namespaces/default/pods/p' ? options.pod() : REPLIES[path];
    response.writeHead(body ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? { kind: 'Status', apiVersion: 'v1', status: 'Failure', code: 404 }));
  });
  server.on('upgrade', (request, socket, head) => {
    const upstream = connect(toKubelet, () => {
      const lines = [`${request.method} ${translate(request.url ?? '')} HTTP/1.1`];
      for (let i = 0; i < request.rawHeaders.length; i += 2)
        lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
      upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
      upstream.write(head);
      socket.pipe(upstream);
      upstream.pipe(socket);
    });
    upstream.on('error', () => socket.destroy());
    socket.on('error', () => upstream.destroy());
    socket.on('close', () => upstream.destroy());
    upstream.on('close', () => socket.destroy());
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
