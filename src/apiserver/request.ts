/**
 * What the stages of a request hand to each other: http → authn → authz → admission → registry. Each stage is an
 * interface here, satisfied by a folder beside this file and wired by `src/app`.
 */

import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { KubeObject } from '../api/meta.ts';
import type { ResourceInfo, SubresourceInfo } from '../api/schema.ts';
import type { ResourceId } from '../client/transport.ts';
import type { Trail } from './audit/trail.ts';
import type { RawRequest, RawResponse } from './http2/raw.ts';
import type { ResourceTable } from './resource-table.ts';

export interface UserInfo {
  readonly name: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

/** Who may do everything without RBAC: the in-process control plane. */
export const LOOPBACK_USER: UserInfo = { name: 'system:apiserver', groups: ['system:masters', 'system:authenticated'] };

/** What authorization decides on; field names as in SubjectAccessReview. */
export interface RequestAttributes {
  readonly user: UserInfo;
  /** get list watch create update patch delete deletecollection; for non-resource paths the lower-case HTTP method. */
  readonly verb: string;
  readonly isResource: boolean;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  readonly path: string;
  /** Raw `fieldSelector` of list, watch and deletecollection: what a node may list depends on it. */
  readonly fieldSelector?: string;
}

/** The credentials of a request, independent of HTTP version. */
export interface Credentials {
  readonly headers: IncomingHttpHeaders;
  /** Verified client certificate's subject, when the TLS layer verified one. */
  readonly certificate?: {
    readonly commonName: string;
    readonly organizations: readonly string[];
    /** At most one makes sense. */
    readonly uids?: readonly string[];
    readonly serial: string;
    /** SHA-256 in hexadecimal digits. */
    readonly fingerprint?: string;
    /** Signed by the authority of front proxies: it proves which proxy this is, not which user. */
    readonly isFrontProxy?: boolean;
  };
  /** Without its query; where anonymous users are let in may depend on it. */
  readonly path?: string;
  /** Takes annotations for the audit log. */
  readonly note?: (note: readonly [key: string, value: string]) => void;
  /** Tells whoever asks something. */
  readonly warn?: (message: string) => void;
}

export interface Authenticator {
  /** The user; undefined when there are no credentials of this kind. Throws `unauthorized()` for bad ones. */
  authenticate(credentials: Credentials): UserInfo | undefined | Promise<UserInfo | undefined>;
}

export interface Decision {
  readonly allowed: boolean;
  readonly reason: string;
}

export interface Authorizer {
  authorize(attributes: RequestAttributes): Decision | Promise<Decision>;
  /** Rules that apply to the user in a namespace (SelfSubjectRulesReview). */
  rulesFor?(
    user: UserInfo,
    namespace: string,
  ): { resourceRules: unknown[]; nonResourceRules: unknown[]; incomplete: boolean };
}

export interface AdmissionRequest {
  readonly operation: 'CREATE' | 'UPDATE' | 'DELETE' | 'CONNECT';
  readonly attributes: RequestAttributes;
  readonly info: ResourceInfo;
  /** Kind of the object where it is not the resource's: a Scale, or the options of a CONNECT, which have no metadata. */
  readonly kind?: SubresourceInfo['kind'];
  /** Defaulted, not yet validated; mutating plugins change it in place. Undefined for DELETE. */
  readonly object: KubeObject | undefined;
  readonly oldObject: KubeObject | undefined;
  readonly dryRun: boolean;
  /** Adds a `Warning:` header to the reply. */
  warn(message: string): void;
  /** Adds an annotation to the audit event, at level Request only where it is asked for; absent when the request is not audited. */
  readonly annotate?: ((key: string, value: string, least?: 'Metadata' | 'Request') => void) | undefined;
  /** Notes the time of a layer there; absent too. */
  readonly spent?: Trail['spent'] | undefined;
  /**
   * Puts another object in the place of `object`, as if the client had sent it: decoded, without unknown fields, with
   * defaults. Absent where there is no object to change.
   */
  replace?(next: KubeObject): void;
}

/** Plugins run in the order of the registry array: all `mutate`s, then validation of the kind, then all `validate`s. Throw ApiError to refuse. */
export interface AdmissionPlugin {
  readonly name: string;
  mutate?(request: AdmissionRequest): void | Promise<void>;
  validate?(request: AdmissionRequest): void | Promise<void>;
}

/** Synchronous reads from the API server's own cache: always the newest committed state. Objects are frozen. */
export interface Reader {
  get(of: ResourceId, namespace: string, name: string): KubeObject | undefined;
  list(of: ResourceId, namespace?: string): readonly KubeObject[];
  /** What is served, where the reader knows. */
  readonly table?: ResourceTable;
  /** Called after each change of the resource; returns a function that ends it. */
  onChange(of: ResourceId, handler: (object: KubeObject | undefined, old: KubeObject | undefined) => void): () => void;
}

/**
 * Claims something unique (ClusterIPs, node ports) while an object is written. `claim` may change the object; the
 * returned functions run when the write was committed or failed. After a restart `claim` state is rebuilt from the Reader.
 */
export interface Allocator {
  readonly of: ResourceId;
  claim(
    object: KubeObject,
    old: KubeObject | undefined,
    options: { dryRun: boolean },
  ): { committed(): void; failed(): void };
  /** The object is gone from the store. */
  release(object: KubeObject): void;
}

/** Everything a handler of a virtual resource or of a special subresource gets. */
export interface HandlerRequest {
  readonly attributes: RequestAttributes;
  readonly query: URLSearchParams;
  readonly dryRun: boolean;
  warn(message: string): void;
  readonly annotate?: ((key: string, value: string) => void) | undefined;
}

/**
 * Answers POSTs that do not simply store the body: TokenReview, SubjectAccessReview, serviceaccounts/token, pods/binding,
 * pods/eviction. Returns the object for the reply (201).
 */
export interface CreateHandler {
  readonly of: ResourceId;
  readonly subresource?: string;
  create(body: KubeObject, request: HandlerRequest): Promise<KubeObject>;
}

/** The raw exchange behind a connect request: either a request with its response, or an HTTP/1.1 `Upgrade`. */
export interface ConnectContext {
  readonly attributes: RequestAttributes;
  readonly query: URLSearchParams;
  /** Path behind `/proxy`, with its leading slash; '' for other subresources. */
  readonly rest: string;
  readonly req: IncomingMessage | RawRequest;
  /** Absent on an upgrade: then the handler answers on `socket`. */
  readonly res?: ServerResponse | RawResponse;
  readonly socket?: Duplex;
  /** First bytes behind the upgrade request. */
  readonly head?: Buffer;
}

/**
 * Takes over the raw connection of `pods/{exec,attach,portforward,log,proxy}`, `services/proxy` and `nodes/proxy`, after
 * authentication, authorization and CONNECT admission. A rejection before anything was written becomes a Status reply.
 */
export interface ConnectHandler {
  readonly of: ResourceId;
  readonly subresource: string;
  handle(context: ConnectContext): Promise<void>;
}

/**
 * Changes stored objects past admission, preparation and validation: for handlers that do what clients may not, such as
 * binding a pod to a node. `change` gets a copy and may be called again after a conflict; what it throws ends the attempt.
 */
export interface StoredObjects {
  modify(
    target: { readonly of: ResourceId; readonly namespace: string; readonly name: string; readonly dryRun?: boolean },
    change: (copy: KubeObject) => void,
  ): Promise<KubeObject>;
}
