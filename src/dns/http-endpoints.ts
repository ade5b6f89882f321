/**
 * The few things DNS serves over HTTP: health, readiness, metrics. Listeners are kept over a change of configuration as long
 * as their address is. One that cannot listen is logged: names are answered all the same.
 */

import { createServer, type Server } from 'node:http';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { HttpReply } from './plugins/plugin.ts';

export type Endpoint = { readonly address: string; readonly path: string; readonly reply: () => HttpReply };

export class HttpEndpoints {
  readonly #hosts: readonly string[];
  readonly #log: Logger;
  readonly #listeners = new Map<string, { readonly server: Server; paths: Map<string, () => HttpReply> }>();

  /** `hosts` are where an address without a host listens. */
  constructor(hosts: readonly string[], log: Logger) {
    this.#hosts = hosts;
    this.#log = log;
  }

  serve(endpoints: readonly Endpoint[]): void {
    const wanted = new Map<string, Map<string, () => HttpReply>>();
    for (const { address, path, reply } of endpoints) {
      const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(address)!;
      for (const at of host === '' ? this.#hosts : [host.replace(/^\[|\]$/g, '')]) {
        const key = `${at} ${port}`;
        if (!wanted.has(key)) wanted.set(key, new Map());
        wanted.get(key)!.set(path, reply);
      }
    }
    for (const [key, listener] of this.#listeners) {
      if (wanted.has(key)) continue;
      listener.server.close();
      this.#listeners.delete(key);
    }
    for (const [key, paths] of wanted) {
      const known = this.#listeners.get(key);
      if (known) known.paths = paths;
      else this.#listen(key, paths);
    }
  }
  close(): void {
    for (const { server } of this.#listeners.values()) {
      server.close();
      server.closeAllConnections();
    }
    this.#listeners.clear();
  }

  #listen(key: string, paths: Map<string, () => HttpReply>): void {
    const listener = {
      paths,
      server: createServer((request, response) => {
        const reply = listener.paths.get(request.url?.split('?')[0] ?? '');
        const {
          code,
          text,
          type = 'text/plain; charset=utf-8',
        } = reply?.() ?? { code: 404, text: '404 page not found\n' };
        response.writeHead(code, { 'content-type': type }).end(request.method === 'HEAD' ? undefined : text);
      }),
    };
    const [host, port] = key.split(' ') as [string, string];
    listener.server.on('error', error =>
      this.#log.warn('HTTP endpoint cannot listen', { host, port, error: messageOf(error) }),
    );
    listener.server.listen({ host, port: Number(port) });
    listener.server.unref();
    this.#listeners.set(key, listener);
  }
}
