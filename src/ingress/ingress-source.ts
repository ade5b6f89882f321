/**
 * Everything that Ingresses are made of, followed through the API: classes and their settings, Ingresses, Secrets, ConfigMaps. Says
 * what it all comes to now, and calls back after each change. While no Ingress is ours nothing but Ingresses and classes is watched.
 */

import { isDeepStrictEqual } from 'node:util';
import type { ConfigMap, Secret } from '../api/core/v1.gen.ts';
import type { Ingress, IngressClass } from '../api/networking/v1.gen.ts';
import type { Logger } from '../base/log.ts';
import { Informer, type InformerFactory } from '../client/informer.ts';
import { CONFIG_MAPS, INGRESS_CLASSES, INGRESSES, SECRETS } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import {
  readAuthorities,
  readCertificate,
  readKeyPair,
  readUsers,
  type SecretData,
  type Users,
} from './credentials.ts';
import { userList } from './haproxy/access.ts';
import type { Resources } from './haproxy/backend.ts';
import {
  className,
  isOurs,
  type Listening,
  ownsHostsByNamespace,
  parametersOf,
  splitClassSettings,
} from './ingress-class.ts';
import { NamedObjects } from './named-objects.ts';
import { buildRouteTable, type ClassedIngress, type Finding, type RouteTable } from './route-table.ts';
import type { SecretRef } from './settings.ts';

export interface IngressState {
  readonly table: RouteTable;
  readonly listening: Listening;
  readonly resources: Resources;
  readonly certificates: ReadonlyMap<string, string>;
  readonly users: ReadonlyMap<string, Users>;
  /** The table's, and those about Secrets and ConfigMaps. */
  readonly findings: readonly Finding[];
}

export interface IngressSourceOptions {
  /** May read Secrets and ConfigMaps. */
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly log: Logger;
}

const TLS_ONLY = 'type=kubernetes.io/tls';
const NOTHING = {};

export class IngressSource {
  readonly #ingresses: Informer<Ingress>;
  readonly #classes: Informer<IngressClass>;
  readonly #tlsSecrets: Informer<Secret>;
  readonly #secrets: NamedObjects<Secret>;
  readonly #configMaps: NamedObjects<ConfigMap>;
  readonly #handlers: (() => void)[] = [];
  readonly #decoded = new WeakMap<Secret, SecretData>();
  readonly #checked = new WeakMap<Secret, Map<string, ReturnType<typeof readCertificate>>>();
  readonly #classSettings = new Map<string, { data: object; split: ReturnType<typeof splitClassSettings> }>();
  #readsSecrets = false;
  #signal: AbortSignal | undefined;

  constructor({ transport, informers, log }: IngressSourceOptions) {
    const changed = () => {
      for (const handler of this.#handlers) handler();
    };
    this.#ingresses = informers.get<Ingress>(INGRESSES);
    this.#classes = informers.get<IngressClass>(INGRESS_CLASSES);
    this.#tlsSecrets = new Informer<Secret>({ transport, of: SECRETS, fieldSelector: TLS_ONLY, log });
    this.#secrets = new NamedObjects({ transport, of: SECRETS, log, changed });
    this.#configMaps = new NamedObjects({ transport, of: CONFIG_MAPS, log, changed });
    this.#ingresses.onChange(({ object, old }) => {
      if (!object || !old || !isSameButStatus(object, old)) changed();
    });
    this.#classes.onChange(changed);
    this.#tlsSecrets.onChange(changed);
    void this.#ingresses.synced.then(changed);
    void this.#classes.synced.then(changed);
  }

  onChange(handler: () => void): void {
    this.#handlers.push(handler);
  }
  start(signal: AbortSignal): void {
    this.#signal = signal;
    signal.addEventListener('abort', () => {
      this.#secrets.want([]);
      this.#configMaps.want([]);
    });
  }
  ingress(key: string): Ingress | undefined {
    return this.#ingresses.get(key);
  }

  /** It has a class of ours, as far as is known, and stays. */
  isOurs(ingress: Ingress): boolean {
    return this.#classOf(ingress) !== undefined;
  }
  #classOf(ingress: Ingress): IngressClass | undefined {
    const ingressClass = this.#classes.get(className(ingress) ?? '');
    return isOurs(ingressClass) && !ingress.metadata.deletionTimestamp ? ingressClass : undefined;
  }

  /** Ingresses of our classes, or undefined until all are known. */
  ours(): ClassedIngress[] | undefined {
    if (!this.#ingresses.hasSynced || !this.#classes.hasSynced) return undefined;
    const found: ClassedIngress[] = [];
    for (const ingress of this.#ingresses.values()) {
      const ingressClass = this.#classOf(ingress);
      if (!ingressClass) continue;
      found.push({
        ingress,
        defaults: this.#settingsOf(ingressClass).defaults,
        ownsHostsByNamespace: ownsHostsByNamespace(ingressClass),
      });
    }
    return found;
  }

  /** What it comes to, or undefined until everything that matters has been read once. */
  state(): IngressState | undefined {
    const classes = [...this.#classes.values()].filter(isOurs);
    const parameters = classes.map(parametersOf).filter(ref => ref !== undefined);
    const ours = this.ours();
    if (!ours) return undefined;
    if (ours.length > 0) this.#readSecrets();
    const table = buildRouteTable(ours);
    const routes = [...table.routes.values()];
    const auth = routes.flatMap(({ settings }) => (settings.basicAuth ? [settings.basicAuth] : []));
    const certificateRefs = [...table.certificates.values()];
    this.#configMaps.want([
      ...(ours.length > 0 ? parameters : []),
      ...routes.flatMap(({ settings, content }) =>
        [settings.responseHeaders ?? [], settings.externalAuth?.requestHeaders ?? [], content ?? []].flat(),
      ),
    ]);
    const isSettled = (ours.length === 0 || this.#tlsSecrets.hasSynced) && this.#configMaps.hasSynced;
    if (!isSettled) return undefined;
    const authorities = routes.flatMap(({ settings }) =>
      [settings.clientAuth?.secret ?? [], settings.upstreamTls?.secret ?? []].flat(),
    );
    this.#secrets.want([
      ...auth.map(({ secret }) => secret),
      ...authorities,
      ...certificateRefs.filter(ref => !this.#tlsSecret(ref)),
    ]);
    if (!this.#secrets.hasSynced) return undefined;

    const findings: Finding[] = [...table.findings];
    for (const { settings, ingress } of routes) {
      const find = ({ name }: SecretRef, text: string) =>
        findings.push({ ingress, reason: 'SecretRefused', message: `Secret ${name} ${text}; nobody is let in` });
      const { clientAuth, upstreamTls } = settings;
      const noAuthorities = 'has no certificates in ca.crt';
      if (clientAuth && !readAuthorities(this.#data(clientAuth.secret)?.['ca.crt']))
        find(clientAuth.secret, noAuthorities);
      if (!upstreamTls) continue;
      const data = this.#data(upstreamTls.secret);
      if (upstreamTls.verifies && !readAuthorities(data?.['ca.crt'])) find(upstreamTls.secret, noAuthorities);
      const pair = data?.['tls.crt'] === undefined && data ? undefined : readKeyPair(data);
      if (pair && 'problem' in pair) find(upstreamTls.secret, pair.problem);
    }
    for (const { content, ingress } of routes)
      if (content && !this.#configMaps.get(content))
        findings.push({ ingress, reason: 'ResourceBackend', message: `ConfigMap ${content.name} does not exist` });
    const users = new Map<string, Users>();
    for (const { settings, ingress } of routes) {
      if (!settings.basicAuth) continue;
      const { secret, format } = settings.basicAuth;
      const read = readUsers(this.#data(secret), format);
      users.set(userList(secret), read);
      if (read.problem)
        findings.push({ ingress, reason: 'SecretRefused', message: `Secret ${secret.name} ${read.problem}` });
    }
    return {
      table,
      listening: this.#listening(classes),
      resources: {
        secret: ref => this.#data(ref),
        configMap: ref => this.#configMaps.get(ref)?.data,
        files: ref => this.#configMaps.get(ref),
      },
      certificates: this.#certificates(table, findings),
      users,
      findings: unique(findings),
    };
  }

  #certificates(table: RouteTable, findings: Finding[]): Map<string, string> {
    const certificates = new Map<string, string>();
    for (const [host, { ingress, ...ref }] of table.certificates) {
      const read = this.#certificate(ref, host);
      const find = (text: string) =>
        findings.push({ ingress, reason: 'SecretRefused', message: `Secret ${ref.name} for ${host} ${text}` });
      if ('problem' in read) {
        find(`${read.problem}; the default certificate is shown`);
        continue;
      }
      if (read.warning) find(read.warning);
      certificates.set(host, read.pem);
    }
    return certificates;
  }

  #certificate(ref: SecretRef, host: string): ReturnType<typeof readCertificate> {
    const secret = this.#tlsSecret(ref) ?? this.#secrets.get(ref);
    if (!secret) return readCertificate(undefined, host);
    let checked = this.#checked.get(secret);
    if (!checked) this.#checked.set(secret, (checked = new Map()));
    let result = checked.get(host);
    if (!result) checked.set(host, (result = readCertificate(this.#decode(secret), host)));
    return result;
  }

  #listening(classes: readonly IngressClass[]): Listening {
    const all = classes.map(ingressClass => this.#settingsOf(ingressClass).listening);
    return {
      proxyProtocol: all.some(({ proxyProtocol }) => proxyProtocol),
      trustsForwarded: all.some(({ trustsForwarded }) => trustsForwarded),
    };
  }

  /** The same object for the same data, by which settings read from it are kept. */
  #settingsOf(ingressClass: IngressClass): ReturnType<typeof splitClassSettings> {
    const ref = parametersOf(ingressClass);
    const data = (ref && this.#configMaps.get(ref)?.data) ?? NOTHING;
    const known = this.#classSettings.get(ingressClass.metadata.name);
    if (known?.data === data) return known.split;
    const split = splitClassSettings(data);
    this.#classSettings.set(ingressClass.metadata.name, { data, split });
    return split;
  }

  #readSecrets(): void {
    if (this.#readsSecrets || !this.#signal) return;
    this.#readsSecrets = true;
    void this.#tlsSecrets.synced.then(() => {
      for (const handler of this.#handlers) handler();
    });
    void this.#tlsSecrets.run(this.#signal);
  }

  #tlsSecret({ namespace, name }: SecretRef): Secret | undefined {
    return this.#tlsSecrets.get(`${namespace}/${name}`);
  }
  #data(ref: SecretRef): SecretData | undefined {
    const secret = this.#secrets.get(ref) ?? this.#tlsSecret(ref);
    return secret && this.#decode(secret);
  }
  #decode(secret: Secret): SecretData {
    let data = this.#decoded.get(secret);
    if (!data) {
      data = Object.fromEntries(
        Object.entries(secret.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
      );
      this.#decoded.set(secret, data);
    }
    return data;
  }
}

/** A status that somebody wrote changes nothing here. */
function isSameButStatus({ metadata }: Ingress, { metadata: old }: Ingress): boolean {
  return (
    metadata.generation !== undefined &&
    metadata.generation === old.generation &&
    metadata.uid === old.uid &&
    metadata.deletionTimestamp === old.deletionTimestamp &&
    isDeepStrictEqual(metadata.annotations, old.annotations)
  );
}

function unique(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map(finding => [JSON.stringify(finding), finding])).values()];
}
