/**
 * What a route does beside choosing endpoints, free of any proxy's language. Made from annotations; read by whatever
 * renders a data plane. Values in here are checked: numbers are in range, names and addresses have their form.
 */

export type BackendProtocol = 'http' | 'https' | 'h2c' | 'h2';

export type Balance =
  | { readonly by: 'roundrobin' | 'leastconn' | 'random' }
  | { readonly by: 'hash'; readonly of: HashSource };

/** What a request is hashed by. */
export type HashSource =
  | { readonly from: 'source' | 'host' | 'uri' | 'path' }
  | { readonly from: 'header' | 'cookie' | 'argument'; readonly name: string };

export interface Affinity {
  readonly cookie: string;
  readonly path?: string;
  readonly domain?: string;
  readonly maxAgeSeconds?: number;
  readonly sameSite?: 'None' | 'Lax' | 'Strict';
  readonly secure: boolean;
}

export interface Limits {
  readonly requestsPerSecond?: number;
  readonly requestsPerMinute?: number;
  readonly connections?: number;
  /** A client may go over its rate by this factor for a moment. */
  readonly burst: number;
  /** CIDRs that no limit applies to. */
  readonly exempt: readonly string[];
}

export interface Replacement {
  readonly from: string;
  readonly to: string;
}

export interface SecretRef {
  readonly namespace: string;
  readonly name: string;
}

export interface BasicAuth {
  readonly secret: SecretRef;
  /** `file`: one key `auth` holding an htpasswd file; `map`: keys are users, values hashes. */
  readonly format: 'file' | 'map';
  readonly realm: string;
}

export interface ExternalAuth {
  readonly url: string;
  readonly method: string;
  /** Where a client that is not signed in is sent. */
  readonly signIn?: Text;
  readonly responseHeaders: readonly string[];
  /** A ConfigMap of headers that the question has. */
  readonly requestHeaders?: SecretRef;
}

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

/** A Secret with `ca.crt`, `tls.crt` and `tls.key`: what a backend is asked to show, and what it is shown. */
export interface UpstreamTls {
  readonly secret: SecretRef;
  readonly verifies: boolean;
}

/** A copy of each request goes there too; what it answers is of no interest. */
export interface Mirror {
  /** A URL whose host is written out. */
  readonly to: Text;
  readonly host: string;
  readonly withBody: boolean;
}

/** Clients show a certificate of one of the authorities in a Secret's `ca.crt`. */
export interface ClientAuth {
  readonly secret: SecretRef;
  /** `optional`: who shows none may come; `unchecked`: whatever is shown, the backend is told what it is worth. */
  readonly mode: 'required' | 'optional' | 'unchecked';
  readonly errorPage?: Text;
  readonly passesCertificate: boolean;
  /** An expression for the common name. */
  readonly commonName?: string;
}

export interface Cors {
  /** Pages of the internet may reach what lies in a private network. */
  readonly privateNetwork?: true;
  /** Origins as given: `*`, `https://example.com`, `https://*.example.com`. */
  readonly origins: readonly string[];
  readonly methods: string;
  readonly headers: string;
  readonly exposeHeaders?: string;
  readonly credentials: boolean;
  readonly maxAgeSeconds: number;
}

export interface CanaryRule {
  readonly header?: { readonly name: string; readonly value?: string; readonly pattern?: string };
  readonly cookie?: string;
  /** Of `total`. */
  readonly weight: number;
  readonly total: number;
}

/** Literal text with variables of the request in it. */
export type Text = readonly (string | { readonly variable: Variable })[];
export type Variable = 'uri' | 'escapedUri' | 'path' | 'query' | 'host' | 'scheme' | 'source' | 'method';

export interface Settings {
  /** Connections with TLS go to the backend as they are. */
  readonly passesTls?: true;
  readonly tlsRedirect: 'withTls' | 'always' | 'never';
  readonly usesRegex: boolean;
  /** With `$1` … for captures of the path. */
  readonly rewriteTarget?: string;
  readonly appRoot?: string;
  readonly redirect?: { readonly to: Text; readonly status: number };
  readonly protocol: BackendProtocol;
  /** Name asked of an HTTPS backend. */
  readonly serverName?: string;
  readonly upstreamTls?: UpstreamTls;
  /** Of TLS with backends; both where nothing is said. */
  readonly upstreamVersion?: TlsVersion;
  readonly connectSeconds?: number;
  readonly readSeconds?: number;
  readonly sendSeconds?: number;
  readonly retry?: { readonly tries: number; readonly on: readonly RetryReason[] };
  readonly bodyBytesMax?: number;
  readonly limits?: Limits;
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  /** Of address, password and the other server's word one is enough. */
  readonly satisfiesAny?: true;
  readonly balance?: Balance;
  readonly affinity?: Affinity;
  readonly basicAuth?: BasicAuth;
  readonly externalAuth?: ExternalAuth;
  readonly clientAuth?: ClientAuth;
  readonly mirror?: Mirror;
  readonly cors?: Cors;
  readonly upstreamHost?: Text;
  readonly forwardedPrefix?: string;
  readonly defaultBackend?: string;
  /** Answers of these statuses give way to what the default backend says of them. */
  readonly errorStatuses?: readonly number[];
  readonly canary?: CanaryRule;
  readonly aliases: readonly string[];
  /** `www.H` leads to `H`, and `H` to `www.H`, where nobody has the other. */
  readonly redirectsWww?: true;
  /** Requests go to the Service's own address, whose endpoint the node chooses. */
  readonly usesClusterIp?: true;
  /** A connection to an endpoint serves one request. */
  readonly closesConnections?: true;
  /** A ConfigMap of response headers. */
  readonly responseHeaders?: SecretRef;
  /** Beginnings of Location headers, and of the paths and domains of cookies, that backends know by other names. */
  readonly redirectFrom?: Replacement;
  readonly cookiePath?: Replacement;
  readonly cookieDomain?: Replacement;
  readonly isLogged: boolean;
  /** A setting that protects could not be honoured: nothing is let through. */
  readonly isClosed: boolean;
}

export type RetryReason = 'connect' | 'empty' | 'timeout' | 500 | 502 | 503 | 504 | 403 | 404 | 'any';

export const DEFAULT_SETTINGS: Settings = {
  tlsRedirect: 'withTls',
  usesRegex: false,
  protocol: 'http',
  aliases: [],
  isLogged: true,
  isClosed: false,
};
