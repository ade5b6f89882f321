/**
 * For tests of who may do what: a whole API server over HTTPS with options of kube-apiserver, an OpenID provider, and webhooks that answer
 * as they are told. Everything listens on 127.0.0.1 and ends with `close`.
 */

import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { createServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { issuerOf } from '../base/cluster-defaults.ts';
import type { Transport } from '../client/transport.ts';
import { openMemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';
import type { ServiceAccountTokens } from './authn/service-account-tokens.ts';
import type { KeyPair } from './certificates/certificate.ts';
import { ensurePki, type Pki } from './certificates/pki.ts';
import { loadServerSettings } from './configuration/server-settings.ts';
import { openSecured } from './security-bed.ts';
import type { ApiServer } from './server.ts';

// biome-ignore lint/suspicious/noExplicitAny: replies of every shape
type Any = any;

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly json: Any;
}

export interface Asked {
  readonly method?: string;
  readonly path: string;
  readonly token?: string;
  readonly as?: KeyPair;
  /** A text is sent as it is. */
  readonly body?: object | string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Bed {
  readonly folder: string;
  readonly pki: Pki;
  readonly server: ApiServer;
  readonly root: Transport;
  readonly store: Store;
  readonly tokens: ServiceAccountTokens;
  readonly admin: KeyPair;
  ask(asked: Asked): Promise<Reply>;
  /** A file below the bed's folder; its path. */
  file(name: string, content: string | object): string;
  close(): Promise<void>;
}

/** Asks again until `check` throws nothing more, for a minute. */
export async function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  const endMs = Date.now() + 60_000;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > endMs) throw error;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }
}

export const testFolder = (): { path: string; file: Bed['file']; remove(): void } => {
  const path = mkdtempSync(join(tmpdir(), 'cox-who-'));
  return {
    path,
    file: (name, content) => {
      writeFileSync(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
      return join(path, name);
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
};

/** A server with the options that `args` makes; it may write files before. */
export async function openBed(
  args: (bed: { file: Bed['file']; pki: Pki }) => readonly string[] | Promise<readonly string[]>,
  options: { store?: (inner: Store) => Promise<Store> } = {},
): Promise<Bed> {
  const folder = testFolder();
  try {
    return await openIn(folder, args, options);
  } catch (error) {
    folder.remove();
    throw error;
  }
}

async function openIn(
  folder: ReturnType<typeof testFolder>,
  args: Parameters<typeof openBed>[0],
  options: { store?: (inner: Store) => Promise<Store> },
): Promise<Bed> {
  const pki = await ensurePki(join(folder.path, 'pki'), { sans: ['127.0.0.1', 'localhost'] });
  const settings = await loadServerSettings(await args({ file: folder.file, pki }), issuerOf());
  const inner = openMemoryStore();
  const store = options.store ? await options.store(inner) : inner;
  const { server, security, root } = await openSecured({ pki, settings, store });
  const frontProxyCa = settings.requestHeaderCa ?? (await pki.ensureFrontProxy()).ca;
  const { port } = await server.listen(
    { host: '127.0.0.1', port: 0 },
    { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca, frontProxyCa },
  );
  const stop = new AbortController();
  const following = security.follow(stop.signal);
  return {
    folder: folder.path,
    pki,
    server,
    store: inner,
    tokens: security.tokens,
    root,
    admin: pki.issueClient({ commonName: 'admin', organizations: ['system:masters'] }),
    file: folder.file,
    ask: asked => ask(port, pki.ca, asked),
    async close() {
      stop.abort();
      await following;
      await server.close();
      folder.remove();
    },
  };
}

export function ask(
  port: number,
  ca: string,
  { method = 'GET', path, token, as, body, headers }: Asked,
): Promise<Reply> {
  const sent = typeof body === 'object' ? JSON.stringify(body) : body;
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        host: '127.0.0.1',
        port,
        path,
        method: body !== undefined && method === 'GET' ? 'POST' : method,
        ca,
        agent: false,
        ...(as ? { key: as.key, cert: as.certificate } : {}),
        headers: {
          ...(token ? { authorization: `Bearer ${token}` } : {}),
          ...(sent === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(sent)) }),
          ...headers,
        },
      },
      response => {
        const parts: Buffer[] = [];
        response.on('data', part => parts.push(part));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(parts).toString();
          let json: unknown = text;
          try {
            json = JSON.parse(text);
          } catch {}
          resolve({ status: response.statusCode!, headers: response.headers, json });
        });
      },
    );
    request.on('error', reject);
    request.end(sent);
  });
}

type Answer = object | string | undefined;

/** An HTTPS server whose replies `answer` makes; a text is sent as it is, undefined is 404. What it was sent is in `seen`. */
export async function openWebhook(
  pki: Pki,
  answer: (path: string, body: Any, headers: IncomingHttpHeaders) => Answer | Promise<Answer>,
): Promise<{ url: string; seen: { path: string; body: Any }[]; close(): Promise<void> }> {
  const pair = pki.issueServer({ commonName: 'hook' }, ['127.0.0.1', 'localhost']);
  const seen: { path: string; body: Any }[] = [];
  const server = createServer({ key: pair.key, cert: pair.certificate }, (request, response) => {
    const parts: Buffer[] = [];
    request.on('data', part => parts.push(part));
    request.on('end', async () => {
      const text = Buffer.concat(parts).toString();
      const body = text ? JSON.parse(text) : undefined;
      seen.push({ path: request.url!, body });
      const reply = await answer(request.url!, body, request.headers);
      const isText = typeof reply === 'string';
      response.writeHead(reply ? 200 : 404, { 'content-type': isText ? 'application/jwt' : 'application/json' });
      response.end(isText ? reply : JSON.stringify(reply ?? {}));
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** A kubeconfig of a webhook. */
export const kubeconfigOf = (pki: Pki, server: string): object => ({
  kind: 'Config',
  clusters: [
    { name: 'hook', cluster: { server, 'certificate-authority-data': Buffer.from(pki.ca).toString('base64') } },
  ],
  users: [{ name: 'api', user: {} }],
  contexts: [{ name: 'hook', context: { cluster: 'hook', user: 'api' } }],
  'current-context': 'hook',
});

/** An OpenID provider: discovery, keys, and tokens with any claims; `more` answers at other paths. */
export async function openProvider(pki: Pki, more?: (path: string, authorization: string | undefined) => Answer) {
  type Algorithm = 'RS256' | 'ES256';
  const keys = new Map<string, { privateKey: KeyObject; jwk: object; alg: Algorithm }>();
  const addKey = (id: string, alg: Algorithm = 'RS256') => {
    const made =
      alg === 'RS256'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = { ...made.publicKey.export({ format: 'jwk' }), kid: id, use: 'sig', alg };
    keys.set(id, { privateKey: createPrivateKey(made.privateKey.export({ type: 'pkcs8', format: 'pem' })), jwk, alg });
  };
  addKey('one');
  const http = await openWebhook(pki, (path, _, { authorization }) => {
    if (path === '/.well-known/openid-configuration')
      return { issuer: http.url, jwks_uri: `${http.url}/keys`, id_token_signing_alg_values_supported: ['RS256'] };
    return path === '/keys' ? { keys: [...keys.values()].map(({ jwk }) => jwk) } : more?.(path, authorization);
  });
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return {
    url: http.url,
    seen: http.seen,
    keys,
    addKey,
    token(claims: object, key = 'one'): string {
      const { privateKey, alg } = keys.get(key)!;
      const nowS = Math.floor(Date.now() / 1000);
      const all = { iss: http.url, aud: 'cluster', iat: nowS, exp: nowS + 3600, ...claims };
      const signed = `${encode({ alg, kid: key, typ: 'JWT' })}.${encode(all)}`;
      const how = alg === 'ES256' ? { key: privateKey, dsaEncoding: 'ieee-p1363' as const } : privateKey;
      return `${signed}.${sign('sha256', Buffer.from(signed), how).toString('base64url')}`;
    },
    close: http.close,
  };
}
