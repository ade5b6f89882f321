/**
 * The annotations of one Ingress by their names without prefix, and what was found wrong with them. Invariant: what nobody asked for is
 * told as unknown, and a refused annotation that was to keep somebody out closes the route.
 */

import { type Reader, Refused } from './annotation-values.ts';

export const PREFIX = 'nginx.ingress.kubernetes.io/';
/** Our own prefix means the same; it wins over nginx's. */
export const OWN_PREFIX = 'ingress.coxswain.dev/';
/** Annotations that people set only to ask for what happens here anyway: any other value is refused. */
const AS_IS: Readonly<Record<string, string>> = {
  'proxy-buffering': 'off',
  'proxy-request-buffering': 'off',
  'proxy-http-version': '1.1',
  'proxy-ssl-server-name': 'on',
  'proxy-next-upstream-timeout': '0',
  'upstream-hash-by-subset': 'false',
  'session-cookie-conditional-samesite-none': 'false',
  'preserve-trailing-slash': 'true',
  'relative-redirects': 'false',
  'enable-rewrite-log': 'false',
  'http2-push-preload': 'false',
  'affinity-canary-behavior': 'sticky',
  'session-cookie-change-on-failure': 'true',
  'enable-modsecurity': 'false',
  'enable-opentelemetry': 'false',
  'enable-owasp-core-rules': 'false',
  'enable-opentracing': 'false',
  'enable-influxdb': 'false',
};

/** Refused, and what they were to protect stays shut. */
const GUARDS =
  /^(auth-(?!cache-|keepalive|always-set-cookie)|global-auth-|whitelist-source-range|allowlist-source-range|denylist-source-range|enable-modsecurity|modsecurity-|satisfy$|ssl-passthrough$|proxy-ssl-(secret|verify))/;

export interface AnnotationFinding {
  readonly annotation: string;
  readonly value: string;
  readonly rule: string;
  readonly closes: boolean;
}

/** Reads annotations one by one and remembers which were asked for, so that the rest is known to be unknown. */
export class Annotations {
  readonly values = new Map<string, { key: string; value: string }>();
  readonly findings: AnnotationFinding[] = [];
  readonly #known = new Set<string>();

  constructor(annotations: Readonly<Record<string, string>>, defaults: Readonly<Record<string, string>>) {
    for (const [name, value] of Object.entries(defaults)) this.values.set(name, { key: `class's ${name}`, value });
    for (const prefix of [PREFIX, OWN_PREFIX])
      for (const [key, value] of Object.entries(annotations))
        if (key.startsWith(prefix)) this.values.set(key.slice(prefix.length), { key, value });
  }
  get<V>(name: string, read: Reader<V>): V | undefined {
    this.#known.add(name);
    const found = this.values.get(name);
    if (!found) return undefined;
    try {
      return read(found.value.trim());
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.refuse(name, error.message);
      return undefined;
    }
  }
  has(name: string): boolean {
    return this.values.has(name);
  }
  refuse(name: string, rule: string): void {
    const { key, value } = this.values.get(name)!;
    this.findings.push({ annotation: key, value: value.slice(0, 120), rule, closes: GUARDS.test(name) });
  }
  refuseUnknown(): void {
    for (const [name, { value }] of this.values) {
      if (this.#known.has(name)) continue;
      const asIs = AS_IS[name];
      if (asIs === undefined)
        this.refuse(
          name,
          name.endsWith('-snippet') ? 'snippets would let an Ingress rewrite the proxy' : 'is not supported',
        );
      else if (value.trim() !== asIs) this.refuse(name, `only "${asIs}" is supported`);
    }
  }
}
