/**
 * The way to a kubelet: which address and port its Node names, and TLS to it with the API server's client certificate.
 * Requests share kept-alive connections; an upgrade gets one of its own.
 */

import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import * as https from 'node:https';
import type { Duplex } from 'node:stream';
import * as tls from 'node:tls';
import type { Node } from '../../api/core/v1.gen.ts';
import { KUBELET_PORT } from '../../base/cluster-defaults.ts';
import { ApiError, notFound } from '../../base/errors.ts';
import { NODES } from '../../client/resources.ts';
import type { KeyPair } from '../certificates/certificate.ts';
import type { Reader } from '../request.ts';
import { connectTcp, dialFailure, type Endpoint } from './dial.ts';

const ADDRESS_TYPES = ['InternalIP', 'ExternalIP', 'Hostname'];
/** Handshakes with nodes that do not answer end after this. */
const HANDSHAKE_MS_MAX = 10_000;

export interface KubeletConnectionsOptions {
  readonly reader: () => Reader;
  readonly client: KeyPair;
  /** What serving certificates of kubelets are checked against; without it they are not checked, as upstream by default. */
  readonly ca?: string;
}

export class KubeletConnections {
  readonly #options: KubeletConnectionsOptions;
  #context: tls.SecureContext | undefined;
  #agent: https.Agent | undefined;

  constructor(options: KubeletConnectionsOptions) {
    this.#options = options;
  }

  /** Where the node's kubelet listens. Throws NotFound, or an error without reason as upstream for a node without address. */
  locate(nodeName: string): Endpoint {
    const node = this.#options.reader().get(NODES, '', nodeName) as Node | undefined;
    if (!node) throw notFound(NODES, nodeName);
    const addresses = node.status?.addresses ?? [];
    for (const type of ADDRESS_TYPES) {
      const address = addresses.find(candidate => candidate.type === type)?.address;
      if (address) return { host: address, port: node.status?.daemonEndpoints?.kubeletEndpoint?.Port || KUBELET_PORT };
    }
    throw plainFailure(
      `no preferred addresses found; known addresses: [${addresses.map(({ address }) => address).join(' ')}]`,
    );
  }

  /** Starts a request; `finish` it by ending the returned request (bodies are piped into it). */
  request(endpoint: Endpoint, options: RequestOptions, onResponse: (response: IncomingMessage) => void): ClientRequest {
    this.#agent ??= new https.Agent({ keepAlive: true, maxFreeSockets: 4 });
    const request = https.request(
      { ...options, ...this.#tls(), host: endpoint.host, port: endpoint.port, agent: this.#agent },
      onResponse,
    );
    request.once('socket', socket => {
      if (!socket.connecting) return;
      socket.setTimeout(HANDSHAKE_MS_MAX, () => request.destroy(new Error('i/o timeout')));
      socket.once('secureConnect', () => socket.setTimeout(0));
    });
    return request;
  }

  /** A connection of its own, after the handshake. */
  async connect(endpoint: Endpoint): Promise<Duplex> {
    const raw = await connectTcp(endpoint);
    return new Promise((resolve, reject) => {
      const socket = tls.connect({
        ...this.#tls(),
        socket: raw,
        ALPNProtocols: ['http/1.1'],
        ...(/^[\d.]+$|:/.test(endpoint.host) ? {} : { servername: endpoint.host }),
        host: endpoint.host,
      });
      const failed = (error: Error) => {
        raw.destroy();
        reject(dialFailure(endpoint, error));
      };
      socket.setTimeout(HANDSHAKE_MS_MAX, () => failed(new Error('TLS handshake timeout')));
      socket.once('error', failed);
      socket.once('secureConnect', () => {
        socket.setTimeout(0);
        socket.removeListener('error', failed);
        resolve(socket);
      });
    });
  }

  #tls(): { secureContext: tls.SecureContext; rejectUnauthorized: boolean } {
    const { client, ca } = this.#options;
    this.#context ??= tls.createSecureContext({ cert: client.certificate, key: client.key, ...(ca ? { ca } : {}) });
    return { secureContext: this.#context, rejectUnauthorized: ca !== undefined };
  }
}

/** A 500 whose message is the client's to read, without a reason, as upstream's for errors that are no Status. */
export function plainFailure(message: string): ApiError {
  return new ApiError({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, code: 500 });
}
