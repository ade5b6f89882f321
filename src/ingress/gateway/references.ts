/**
 * References from one object to another: which grants allow them across namespaces, and the Services and policies behind them. A reference
 * that is not allowed says nothing about whether its target exists.
 */

import { createHash } from 'node:crypto';
import type { BackendObjectReference, BackendTLSPolicy, ObjectReference } from '../../api/gateway/v1.ts';
import { GROUP } from '../../api/gateway/v1.ts';
import { keyOf } from '../../api/meta.ts';
import { readAuthorities } from '../credentials.ts';
import type { ServiceRef } from '../route-table.ts';
import type { SecretRef } from '../settings.ts';
import { compareAge, type GatewayObjects, type Problem, type Said, said } from './gateway-objects.ts';

export interface Referent {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** How a backend is spoken to. */
export interface Upstream {
  readonly protocol: 'http' | 'h2';
  readonly tls?: {
    /** What is asked for, and what the certificate must be for: HAProxy checks it by the name that it asked for, whatever else it is given. */
    readonly hostname: string;
    readonly caFile: string;
    /** File of the certificate that is shown to the backend. */
    readonly certificate?: string;
  };
}

export interface ResolvedBackend {
  readonly service: ServiceRef;
  readonly upstream: Upstream;
}

export interface PolicyResult {
  readonly policy: BackendTLSPolicy;
  readonly conditions: readonly Said[];
  /** Gateways whose routes come to its targets. */
  readonly ancestors: Set<string>;
}

const SYSTEM_CA = '@system-ca';

const H2C = 'kubernetes.io/h2c';
/** What an HTTPRoute can speak of Kubernetes' own names of protocols. */
const SPOKEN = [H2C, 'kubernetes.io/ws', 'kubernetes.io/wss'];

/** What a port is for that cannot be spoken to it; names that are not Kubernetes' own say nothing. */
function unspoken(kind: string, protocol: string | undefined, hasTls: boolean): string | undefined {
  if (!protocol?.startsWith('kubernetes.io/') || (kind !== 'HTTPRoute' && kind !== 'GRPCRoute')) return undefined;
  if (protocol === 'kubernetes.io/wss' && !hasTls) return `${protocol}, which takes a BackendTLSPolicy`;
  return kind === 'GRPCRoute'
    ? protocol === H2C
      ? undefined
      : protocol
    : SPOKEN.includes(protocol)
      ? undefined
      : protocol;
}

export class References {
  readonly #objects: GatewayObjects;
  readonly #policies = new Map<string, PolicyResult & { readonly tls: NonNullable<Upstream['tls']> | undefined }>();
  /** All that name a target, also those that another one has outdone. */
  readonly #naming = new Map<string, PolicyResult[]>();
  readonly policies: PolicyResult[] = [];
  /** File → certificates of authorities, or of gateways with their keys. */
  readonly caFiles = new Map<string, string>();
  /** `namespace/name` of every Service that was asked about. */
  readonly services = new Set<string>();

  constructor(objects: GatewayObjects) {
    this.#objects = objects;
    for (const policy of [...objects.policies].sort(compareAge)) this.#readPolicy(policy);
  }

  /** Whether an object of that kind and namespace may refer to that one. */
  permits(from: { readonly kind: string; readonly namespace: string }, to: Referent): boolean {
    if (from.namespace === to.namespace) return true;
    return this.#objects.grants.some(
      ({ metadata, spec }) =>
        metadata.namespace === to.namespace &&
        spec.from.some(each => each.group === GROUP && each.kind === from.kind && each.namespace === from.namespace) &&
        spec.to.some(each => each.group === to.group && each.kind === to.kind && (!each.name || each.name === to.name)),
    );
  }

  /** The authorities that a Gateway has clients checked by: those of its references that can be had, and what is wrong with the others. */
  authorities(
    namespace: string,
    refs: readonly ObjectReference[],
  ): { readonly caFile: string | undefined; readonly problems: readonly Problem[] } {
    const problems: Problem[] = [];
    let pem = '';
    for (const { group, kind, name, namespace: of = namespace } of refs) {
      if (group !== '' || kind !== 'ConfigMap') {
        const message = `certificates come from ConfigMaps, not ${group}/${kind} ${name}`;
        problems.push({ reason: 'InvalidCACertificateKind', message });
      } else if (!this.permits({ kind: 'Gateway', namespace }, { group, kind, namespace: of, name })) {
        const message = `no ReferenceGrant in namespace ${of} lets a Gateway of ${namespace} refer to ConfigMap ${name}`;
        problems.push({ reason: 'RefNotPermitted', message });
      } else {
        const bundle = this.#bundle({ namespace: of, name });
        if (typeof bundle === 'string') pem += bundle;
        else problems.push(bundle);
      }
    }
    return { caFile: pem === '' ? undefined : this.file('ca', pem), problems };
  }

  /** Where a text of certificates will be found: another file for another text. */
  file(kind: 'ca' | 'own', pem: string): string {
    const file = `certificates/${kind}-${createHash('sha256').update(pem).digest('hex')}.pem`;
    this.caFiles.set(file, pem);
    return file;
  }

  #bundle(ref: SecretRef): string | Problem {
    const bundle = readAuthorities(this.#objects.configMap(ref)?.['ca.crt']);
    return (
      bundle ?? {
        reason: 'InvalidCACertificateRef',
        message: `ConfigMap ${ref.name} has no certificates in the key ca.crt, or some that are none`,
      }
    );
  }

  /** The Service behind a reference of a route to a backend. */
  backend(
    from: { readonly kind: string; readonly namespace: string },
    ref: BackendObjectReference,
    gateways: Iterable<string>,
  ): ResolvedBackend | Problem {
    const { group = '', kind = 'Service', name, port } = ref;
    if (group !== '' || kind !== 'Service')
      return { reason: 'InvalidKind', message: `backends are Services, not ${group}/${kind} ${name}` };
    const namespace = ref.namespace ?? from.namespace;
    if (!this.permits(from, { group, kind, namespace, name }))
      return {
        reason: 'RefNotPermitted',
        message: `no ReferenceGrant in namespace ${namespace} lets a ${from.kind} of ${from.namespace} refer to Service ${name}`,
      };
    this.services.add(`${namespace}/${name}`);
    const service = this.#objects.service(namespace, name);
    if (!service) return { reason: 'BackendNotFound', message: `Service ${namespace}/${name} does not exist` };
    if (service.spec?.type === 'ExternalName')
      return { reason: 'InvalidKind', message: `Service ${namespace}/${name} is of type ExternalName` };
    const wanted = from.kind === 'UDPRoute' ? 'UDP' : 'TCP';
    const found = service.spec?.ports?.find(each => each.port === port && (each.protocol ?? 'TCP') === wanted);
    if (!found)
      return { reason: 'BackendNotFound', message: `Service ${namespace}/${name} has no ${wanted} port ${port}` };
    const isH2 = from.kind === 'GRPCRoute' || found.appProtocol === H2C;
    const keys = [`${namespace}/${name} ${found.name ?? ''}`, `${namespace}/${name}`];
    const policy = keys.map(key => this.#policies.get(key)).find(each => each !== undefined);
    for (const named of keys.flatMap(key => this.#naming.get(key) ?? []))
      for (const gateway of gateways) named.ancestors.add(gateway);
    const odd = unspoken(from.kind, found.appProtocol, policy !== undefined);
    if (odd)
      return { reason: 'UnsupportedProtocol', message: `port ${port} of Service ${namespace}/${name} is for ${odd}` };
    if (policy && !policy.tls)
      return { reason: 'InvalidBackendTLSPolicy', message: `BackendTLSPolicy ${keyOf(policy.policy)} is not usable` };
    return {
      service: { namespace, name, port: found.port },
      upstream: { protocol: isH2 ? 'h2' : 'http', ...(policy?.tls ? { tls: policy.tls } : {}) },
    };
  }

  #readPolicy(policy: BackendTLSPolicy): void {
    const { namespace = '' } = policy.metadata;
    const { validation, targetRefs } = policy.spec;
    const { caFile, problem } = this.#resolveCertificates(policy);
    const other = validation.subjectAltNames?.find(({ hostname }) => hostname !== validation.hostname);
    const unsupported = other
      ? {
          reason: 'Invalid',
          message: `subjectAltNames: ${other.hostname ?? other.uri} cannot be checked, only the hostname itself (${validation.hostname})`,
        }
      : Object.keys(policy.spec.options ?? {}).length > 0
        ? { reason: 'Invalid', message: 'there are no options' }
        : (validation.wellKnownCACertificates ?? 'System') !== 'System'
          ? { reason: 'Invalid', message: `there are no certificates named ${validation.wellKnownCACertificates}` }
          : undefined;
    const tls = caFile !== undefined && !unsupported ? { hostname: validation.hostname, caFile } : undefined;
    const conflicts: string[] = [];
    const conditions: Said[] = [];
    const result = { policy, conditions, ancestors: new Set<string>(), tls };
    for (const { group, kind, name, sectionName } of targetRefs) {
      if (group !== '' || kind !== 'Service') continue;
      const key = `${namespace}/${name}${sectionName ? ` ${sectionName}` : ''}`;
      this.#naming.set(key, [...(this.#naming.get(key) ?? []), result]);
      const known = this.#policies.get(key);
      if (known) conflicts.push(`${key} has the older policy ${keyOf(known.policy)}`);
      else this.#policies.set(key, result);
    }
    const foreign = targetRefs.find(({ group, kind }) => group !== '' || kind !== 'Service');
    const refusal =
      conflicts.length > 0
        ? { reason: 'Conflicted', message: conflicts.join('; ') }
        : foreign
          ? { reason: 'TargetNotFound', message: `targets are Services, not ${foreign.group}/${foreign.kind}` }
          : (unsupported ??
            (caFile === undefined && problem ? { ...problem, reason: 'NoValidCACertificate' } : undefined));
    conditions.push(
      refusal
        ? said('Accepted', false, refusal.reason, refusal.message)
        : said('Accepted', true, 'Accepted', 'the policy is in force'),
      problem
        ? said('ResolvedRefs', false, problem.reason, problem.message)
        : said('ResolvedRefs', true, 'ResolvedRefs'),
    );
    this.policies.push(result);
  }

  /** Of several those that can be had count, and the first of the others is told. */
  #resolveCertificates({ metadata, spec }: BackendTLSPolicy): {
    readonly caFile: string | undefined;
    readonly problem?: Problem;
  } {
    const { caCertificateRefs = [] } = spec.validation;
    if (caCertificateRefs.length === 0) return { caFile: SYSTEM_CA };
    const problems: Problem[] = [];
    let pem = '';
    for (const { group, kind, name } of caCertificateRefs) {
      const isConfigMap = group === '' && kind === 'ConfigMap';
      const bundle = isConfigMap
        ? this.#bundle({ namespace: metadata.namespace ?? '', name })
        : { reason: 'InvalidKind', message: `certificates come from ConfigMaps, not ${group}/${kind} ${name}` };
      if (typeof bundle === 'string') pem += bundle;
      else problems.push(bundle);
    }
    const [problem] = problems;
    return { caFile: pem === '' ? undefined : this.file('ca', pem), ...(problem ? { problem } : {}) };
  }
}
