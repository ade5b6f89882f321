/**
 * Who may use the kubelet's port: a client certificate of the cluster's authority or a bearer token says who asks (TokenReview), the
 * API server says what of this node they may (SubjectAccessReview on `nodes`). Answers are kept for a while. Invariant: the API
 * server itself and system:masters are let in without asking, so that a node that cannot reach it can still be looked at.
 */

import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { TokenReview } from '../../api/authentication/v1.gen.ts';
import type { SubjectAccessReview } from '../../api/authorization/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { KubeletAuthentication, KubeletAuthorization } from '../configuration.ts';

const MASTERS = 'system:masters';
const API_SERVER = 'kube-apiserver-kubelet-client';
const ANONYMOUS: Caller = { name: 'system:anonymous', groups: ['system:unauthenticated'] };
const KEPT_MAX = 2000;

/** By the first part of the path, what of a node one must be allowed; the first that is allowed is enough. */
const SUBRESOURCES: Readonly<Record<string, readonly string[]>> = {
  stats: ['stats'],
  metrics: ['metrics'],
  logs: ['log'],
  statusz: ['statusz'],
  flagz: ['flagz'],
  healthz: ['healthz', 'proxy'],
  configz: ['configz', 'proxy'],
  pods: ['pods', 'proxy'],
  runningpods: ['pods', 'proxy'],
};
/** A program that runs in a pod is made, whichever method a WebSocket has to use. */
const SESSIONS = ['exec', 'attach', 'portForward'];
const VERBS: Readonly<Record<string, string>> = {
  GET: 'get',
  HEAD: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

export interface Refusal {
  readonly code: number;
  readonly text: string;
}

interface Caller {
  readonly name: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export interface AccessOptions {
  readonly nodeName: string;
  readonly transport: Transport;
  readonly authentication: KubeletAuthentication;
  readonly authorization: KubeletAuthorization;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Access {
  readonly #options: AccessOptions;
  readonly #callers: Kept<Caller | undefined>;
  readonly #decisions: Kept<boolean>;

  constructor(options: AccessOptions) {
    this.#options = options;
    this.#callers = new Kept(options.clock);
    this.#decisions = new Kept(options.clock);
  }

  /** Undefined for a request that may go on; `first` is the first part of its path. */
  async refusal(request: IncomingMessage, first: string): Promise<Refusal | undefined> {
    const { log } = this.#options;
    let caller: Caller | undefined;
    try {
      caller = await this.#callerOf(request);
    } catch (error) {
      log.warn('who asks is not known', { error: messageOf(error) });
    }
    if (!caller) return { code: 401, text: 'Unauthorized' };
    if (caller.groups.includes(MASTERS) || caller.name === API_SERVER) return undefined;
    if (this.#options.authorization.mode === 'AlwaysAllow') return undefined;
    const verb = SESSIONS.includes(first) ? 'create' : (VERBS[request.method ?? ''] ?? '');
    const subresources = SUBRESOURCES[first] ?? ['proxy'];
    const who = `user=${caller.name}, verb=${verb}, resource=nodes, subresource(s)=[${subresources.join(' ')}]`;
    try {
      for (const subresource of subresources) if (await this.#isAllowed(caller, verb, subresource)) return undefined;
    } catch (error) {
      log.warn('the API server was not asked', { who, error: messageOf(error) });
      return { code: 500, text: `Authorization error (${who})` };
    }
    return { code: 403, text: `Forbidden (${who})` };
  }

  async #callerOf(request: IncomingMessage): Promise<Caller | undefined> {
    const { authentication } = this.#options;
    const socket = request.socket as TLSSocket;
    if (socket.authorized) {
      const { CN, O } = socket.getPeerCertificate().subject ?? {};
      return { name: [CN].flat()[0] ?? '', groups: [...[O ?? []].flat(), 'system:authenticated'] };
    }
    const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
    if (token) return authentication.webhook ? this.#ownerOf(token) : undefined;
    return authentication.anonymous ? ANONYMOUS : undefined;
  }

  #ownerOf(token: string): Promise<Caller | undefined> {
    const { authentication, transport } = this.#options;
    return this.#callers.get(createHash('sha256').update(token).digest('base64'), async () => {
      const review: TokenReview = {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        metadata: { name: '' },
        spec: { token },
      };
      const { status } = (await transport.create({ of: TOKEN_REVIEWS }, review)) as TokenReview;
      const { username = '', uid, groups = [], extra } = status?.user ?? {};
      const value = status?.authenticated
        ? { name: username, groups, ...(uid ? { uid } : {}), ...(extra ? { extra } : {}) }
        : undefined;
      return { value, seconds: authentication.cacheSeconds };
    });
  }

  #isAllowed(caller: Caller, verb: string, subresource: string): Promise<boolean> {
    const { authorization, nodeName, transport } = this.#options;
    return this.#decisions.get(JSON.stringify([caller, verb, subresource]), async () => {
      const { name, uid, groups, extra } = caller;
      const review: SubjectAccessReview = {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        metadata: { name: '' },
        spec: {
          user: name,
          groups: [...groups],
          ...(uid ? { uid } : {}),
          ...(extra ? { extra: extra as Record<string, string[]> } : {}),
          resourceAttributes: { verb, version: 'v1', resource: 'nodes', subresource, name: nodeName },
        },
      };
      const { status } = (await transport.create({ of: SUBJECT_ACCESS_REVIEWS }, review)) as SubjectAccessReview;
      const value = status?.allowed ?? false;
      return { value, seconds: value ? authorization.allowedSeconds : authorization.refusedSeconds };
    });
  }
}

/** Answers by what was asked, each for its time; who asks while another is being answered gets that answer. */
class Kept<T> {
  readonly #clock: Clock;
  readonly #answers = new Map<string, { readonly answer: Promise<T>; untilMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }
  get(key: string, ask: () => Promise<{ readonly value: T; readonly seconds: number }>): Promise<T> {
    const known = this.#answers.get(key);
    if (known && known.untilMs > this.#clock.monotonic()) return known.answer;
    const asked = ask();
    const entry = { answer: asked.then(({ value }) => value), untilMs: Number.POSITIVE_INFINITY };
    const forget = () => {
      if (this.#answers.get(key) === entry) this.#answers.delete(key);
    };
    this.#answers.delete(key);
    this.#answers.set(key, entry);
    asked.then(({ seconds }) => {
      entry.untilMs = this.#clock.monotonic() + seconds * 1000;
    }, forget);
    // The oldest goes: what matters is asked for again and again.
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > KEPT_MAX && oldest !== undefined) this.#answers.delete(oldest);
    return entry.answer;
  }
}
