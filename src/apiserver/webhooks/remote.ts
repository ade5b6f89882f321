/**
 * Requests of the API server to services that its configuration names (token and authorization webhooks, audit sinks, OpenID
 * providers): HTTPS with connections kept, a limit of time and size, no redirects. Whether to try again is the caller's.
 */

import * as https from 'node:https';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { messageOf } from '../../base/errors.ts';
import type { ServerAccess } from '../../client/kubeconfig.ts';

const REPLY_BYTES_MAX = 4 * 1024 * 1024;

/** Opens the connection itself, for who must do so from elsewhere; undefined leaves it to node. */
export type Dial = (place: { readonly host: string; readonly port: number }) => Duplex | undefined;

export interface RemoteReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** A reply that was no success. */
export class RemoteStatusError extends Error {
  override name = 'RemoteStatusError';
  readonly status: number;
  constructor(status: number, text: string) {
    super(`status ${status}: ${text.slice(0, 200)}`);
    this.status = status;
  }
}

export class Remote {
  readonly #access: Omit<ServerAccess, 'server'>;
  readonly #agent: https.Agent;

  constructor(access: Omit<ServerAccess, 'server'>, dial?: Dial) {
    this.#access = access;
    this.#agent = new https.Agent({ keepAlive: true, maxFreeSockets: 8, timeout: 60_000 });
    if (dial) dialing(this.#agent, dial);
  }

  /** The JSON of a reply of 200 or 201. Rejects with RemoteStatusError for another one, with Error for everything else. */
  async json(
    url: string,
    options: { readonly body?: object; readonly timeoutMs: number },
  ): Promise<{ value: unknown } & Pick<RemoteReply, 'headers' | 'text'>> {
    const reply = await this.#request(url, options);
    if (reply.status < 200 || reply.status > 201) throw new RemoteStatusError(reply.status, reply.text);
    try {
      return { value: JSON.parse(reply.text), headers: reply.headers, text: reply.text };
    } catch {
      throw new Error(`${url}: the reply is not JSON`);
    }
  }

  /** As `json`, whatever the body of the reply is. */
  async post(url: string, options: { readonly body: object; readonly timeoutMs: number }): Promise<void> {
    const { status, text } = await this.#request(url, options);
    if (status < 200 || status > 299) throw new RemoteStatusError(status, text);
  }

  /** The body of a successful reply, whatever it is, of who presents `token`. */
  async text(url: string, options: { readonly token?: string; readonly timeoutMs: number }): Promise<string> {
    const { status, text } = await this.#request(url, { ...options, accept: '*/*' });
    if (status < 200 || status > 226) throw new RemoteStatusError(status, text);
    return text;
  }

  #request(
    url: string,
    asked: { body?: object; timeoutMs: number; token?: string; accept?: string },
  ): Promise<RemoteReply> {
    const { body, timeoutMs, accept = 'application/json' } = asked;
    const { hostname, port, pathname, search } = new URL(url);
    const host = hostname.replace(/^\[|\]$/g, '');
    const { ca, cert, key, servername = host, insecure } = this.#access;
    const token = asked.token ?? this.#access.token?.();
    const sent = body && Buffer.from(JSON.stringify(body));
    const method = sent ? 'POST' : 'GET';
    return new Promise((resolve, reject) => {
      const fail = (error: Error) =>
        reject(
          new Error(
            `${method === 'GET' ? 'Get' : 'Post'} ${JSON.stringify(url)}: ${error.name === 'AbortError' || error.name === 'TimeoutError' ? 'context deadline exceeded' : messageOf(error)}`,
          ),
        );
      const request = https.request({
        host,
        port: Number(port || 443),
        path: pathname + search,
        method,
        ...(isIP(servername) ? {} : { servername }),
        ...(ca ? { ca } : {}),
        ...(cert ? { cert } : {}),
        ...(key ? { key } : {}),
        rejectUnauthorized: !insecure,
        agent: this.#agent,
        headers: {
          accept,
          'user-agent': 'kube-apiserver',
          ...(sent ? { 'content-type': 'application/json', 'content-length': sent.length } : {}),
          ...(token ? { authorization: `Bearer ${token}` } : {}),
        },
        signal: AbortSignal.timeout(timeoutMs),
      });
      request.on('error', fail);
      request.on('response', response => {
        const parts: Buffer[] = [];
        let size = 0;
        response.on('data', (part: Buffer) => {
          size += part.length;
          if (size > REPLY_BYTES_MAX) request.destroy(new Error('the reply is too large'));
          else parts.push(part);
        });
        response.on('error', fail);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(parts).toString(),
          }),
        );
      });
      request.end(sent);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

function dialing(agent: https.Agent, dial: Dial): void {
  const ordinary = agent.createConnection.bind(agent) as (...args: unknown[]) => Duplex;
  (agent as { createConnection: unknown }).createConnection = (options: never, callback: never) => {
    const { host, port } = options as { host: string; port: number };
    const socket = dial({ host, port });
    return socket ? connectTls({ ...(options as object), socket }) : ordinary(options, callback);
  };
}
