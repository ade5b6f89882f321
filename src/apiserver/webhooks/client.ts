/**
 * Calls webhooks: a POST of a review over HTTPS to a URL or to a ready endpoint of a Service, verified against the bundle of
 * the one who configured it. It follows no redirect, waits no longer than it was told, and reads no endless reply.
 */

import * as https from 'node:https';
import { isIP } from 'node:net';
import type { WebhookClientConfig } from '../../api/admissionregistration/v1.gen.ts';
import type { Random } from '../../base/random.ts';
import { answeredBy, clientSpan, endUnanswered } from '../../base/tracing/http-client.ts';
import { traceHeaders } from '../../base/tracing/propagation.ts';
import type { Reader } from '../request.ts';
import { dialText } from '../streaming/dial.ts';
import { pickEndpoint } from '../streaming/proxies.ts';

/** Upstream's limit of a reply is that of a request. */
const REPLY_BYTES_MAX = 3 * 1024 * 1024 * 2;
const AGENTS_MAX = 200;

interface Place {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly serverName: string;
  /** As messages name it. */
  readonly url: string;
}

/** The webhook's server answered with another code than 200. */
export class WebhookStatusError extends Error {
  override name = 'WebhookStatusError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export class WebhookClient {
  readonly #options: { readonly reader: () => Reader; readonly random: Random };
  /** Connections are kept for the next review, by what verifies them. */
  readonly #agents = new Map<string, https.Agent>();

  constructor(options: { readonly reader: () => Reader; readonly random: Random }) {
    this.#options = options;
  }

  /** The reply's JSON. Rejects with the message upstream would give: `Post "https://…": dial tcp …`. */
  async call(config: WebhookClientConfig, review: object, timeoutMs: number): Promise<unknown> {
    const place = this.#locate(config, timeoutMs);
    const ca = config.caBundle ? Buffer.from(config.caBundle, 'base64') : undefined;
    const body = Buffer.from(JSON.stringify(review));
    const fail = (why: string) => new Error(`Post ${JSON.stringify(place.url)}: ${why}`);
    const span = clientSpan(() => ({ method: 'POST', host: place.serverName, port: place.port, url: place.url }));
    const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const request = https.request({
        host: place.host,
        port: place.port,
        path: place.path,
        method: 'POST',
        // Addresses have no name to ask for; the certificate is checked against them.
        ...(isIP(place.serverName) ? {} : { servername: place.serverName }),
        ...(ca ? { ca } : {}),
        agent: this.#agent(`${place.serverName} ${config.caBundle ?? ''}`),
        headers: {
          host: place.serverName,
          'content-type': 'application/json',
          accept: 'application/json, */*',
          'content-length': body.length,
          'user-agent': 'kube-apiserver-admission',
          ...(span ? traceHeaders(span.context) : {}),
        },
        signal: AbortSignal.timeout(timeoutMs),
      });
      request.on('error', (error: NodeJS.ErrnoException) => {
        if (span) endUnanswered(span, error);
        reject(
          fail(
            error.name === 'AbortError' || error.name === 'TimeoutError'
              ? 'context deadline exceeded'
              : textOf(place, error),
          ),
        );
      });
      request.on('response', reply => {
        if (span) answeredBy(span, reply.statusCode ?? 0);
        reply.on('close', () => span?.end());
        const parts: Buffer[] = [];
        let size = 0;
        reply.on('data', (part: Buffer) => {
          size += part.length;
          if (size > REPLY_BYTES_MAX) request.destroy(new Error('the reply is too large'));
          else parts.push(part);
        });
        reply.on('error', error => reject(fail(error.message)));
        reply.on('end', () => resolve({ status: reply.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
      });
      request.end(body);
    });
    if (status >= 300 && status < 400) throw fail('redirects are not followed');
    if (status !== 200)
      throw new WebhookStatusError(
        status,
        `the server could not process the request: status ${status}: ${text.slice(0, 200)}`,
      );
    try {
      return JSON.parse(text);
    } catch {
      throw new Error('the reply is not JSON');
    }
  }

  #locate({ url, service }: WebhookClientConfig, timeoutMs: number): Place {
    if (url) {
      const { hostname, port, pathname, search } = new URL(url);
      const host = hostname.replace(/^\[|\]$/g, '');
      return { host, port: Number(port || 443), path: pathname + search, serverName: host, url };
    }
    const { name, namespace, path = '', port = 443 } = service!;
    const serverName = `${name}.${namespace}.svc`;
    const place = pickEndpoint(this.#options, { name, port: String(port) }, namespace);
    const fullPath = path.startsWith('/') ? path : `/${path}`;
    return {
      ...place,
      path: fullPath,
      serverName,
      url: `https://${serverName}:${port}${fullPath}?timeout=${Math.round(timeoutMs / 1000)}s`,
    };
  }

  #agent(id: string): https.Agent {
    let agent = this.#agents.get(id);
    if (!agent) {
      if (this.#agents.size >= AGENTS_MAX) {
        for (const old of this.#agents.values()) old.destroy();
        this.#agents.clear();
      }
      this.#agents.set(id, (agent = new https.Agent({ keepAlive: true, maxFreeSockets: 4, timeout: 60_000 })));
    }
    return agent;
  }
}

function textOf({ host, port, serverName }: Place, error: NodeJS.ErrnoException): string {
  if (error.syscall === 'connect') return dialText({ host, port }, error);
  if (error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN') return `dial tcp: lookup ${serverName}: no such host`;
  if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(error.code ?? ''))
    return `tls: failed to verify certificate: x509: ${error.message}`;
  return error.message;
}
