/**
 * Everything that decides about a request, put together: who asks, what they may do, what admission makes of it, which
 * addresses Services get, and the handlers of reviews, tokens, bindings and streams. `bootstrap` writes what every cluster
 * has from the start. Nothing reads the cache before the first request or `bootstrap`.
 */

import type { KubeObject } from '../api/meta.ts';
import { resourceByName } from '../api/resources.ts';
import type { ResourceInfo } from '../api/schema.ts';
import type { Clock } from '../base/clock.ts';
import { issuerOf } from '../base/cluster-defaults.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { SECRETS } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { ensureBootstrapObjects } from './admission/bootstrap-objects.ts';
import type { AdmissionContext } from './admission/context.ts';
import { PolicyStatuses } from './admission/policy-statuses.ts';
import { admissionPlugins } from './admission/registry.ts';
import { ResourceQuota } from './admission/resource-quota.ts';
import { Aggregator } from './aggregation/aggregator.ts';
import { AllocationRepair } from './allocators/allocation-repair.ts';
import { ClusterAddresses } from './allocators/cluster-addresses.ts';
import { ensureKubernetesService, keepKubernetesService } from './allocators/kubernetes-service.ts';
import { NodePorts } from './allocators/node-ports.ts';
import { ServiceAllocator } from './allocators/service-allocator.ts';
import type { Auditor } from './audit/auditor.ts';
import { auditorOf } from './audit/sinks.ts';
import { Authentication } from './authn/authentication.ts';
import { ExternalSigner } from './authn/external-signer.ts';
import { REQUEST_HEADER_DEFAULTS } from './authn/request-header.ts';
import { ServiceAccountTokens } from './authn/service-account-tokens.ts';
import { LocalKeys } from './authn/token-keys.ts';
import { followAuthorization, linksOf } from './authz/authorization.ts';
import { AUTHORIZATION_DEFAULT } from './authz/authorization-configuration.ts';
import { AuthorizerChain } from './authz/authorizer.ts';
import { PolicyReconciler } from './authz/policy-reconciler.ts';
import type { Pki } from './certificates/pki.ts';
import type { ServerSettings } from './configuration/server-settings.ts';
import { defaultServiceAccounts } from './configuration/service-account-settings.ts';
import { Fairness } from './fairness/fairness.ts';
import { FairnessObjects } from './fairness/fairness-objects.ts';
import { ResourceMetrics } from './metrics/resource-metrics.ts';
import type {
  AdmissionPlugin,
  Allocator,
  Authenticator,
  Authorizer,
  ConnectHandler,
  CreateHandler,
  Reader,
  StoredObjects,
} from './request.ts';
import { podHandlers } from './reviews/pods.ts';
import { subjectAccessHandlers } from './reviews/subject-access.ts';
import { tokenHandlers } from './reviews/tokens.ts';
import { KubeletConnections } from './streaming/kubelet-connection.ts';
import { podStreams } from './streaming/pod-streams.ts';
import { proxies } from './streaming/proxies.ts';
import type { Dial } from './webhooks/remote.ts';

export interface SecurityOptions {
  readonly reader: () => Reader;
  /** In process, with all rights. */
  readonly transport: () => Transport;
  /** Default: the transport, which in process is one too. */
  readonly stored?: () => StoredObjects;
  readonly pki: Pki;
  /** One range, or one of each family; the first is the default family. */
  readonly serviceCidrs: readonly string[];
  readonly nodePortRange: { readonly first: number; readonly last: number };
  readonly clusterDomain?: string;
  /** Where pods and nodes reach this server. */
  readonly advertise: { readonly address: string; readonly port: number };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Default: as a server without options. */
  readonly settings?: ServerSettings;
  /** How webhooks and issuers are reached, where not by an ordinary connection. */
  readonly dial?: { readonly controlplane?: Dial | undefined; readonly cluster?: Dial | undefined };
  /** False: kubelets' serving certificates are not checked, for nodes that sign their own. Default true: the cluster's CA. */
  readonly verifyKubelets?: boolean;
}

export interface Security {
  readonly optional: readonly ResourceInfo[];
  readonly flags: Readonly<Record<string, string>>;
  readonly authenticators: readonly Authenticator[];
  readonly authorizer: Authorizer;
  readonly admission: readonly AdmissionPlugin[];
  readonly allocators: readonly Allocator[];
  readonly createHandlers: readonly CreateHandler[];
  readonly connectHandlers: readonly ConnectHandler[];
  readonly openid: ServiceAccountTokens['discovery'];
  readonly aggregator: Aggregator;
  readonly fairness: Fairness;
  readonly auditor: Auditor | undefined;
  readonly tokens: ServiceAccountTokens;
  /** Follows the configuration files that may change while the server runs, until the signal aborts. */
  follow(signal: AbortSignal): Promise<void>;
  /** Writes what is missing of the system's own objects; idempotent, and cheap when nothing is. */
  bootstrap(): Promise<void>;
  /** Writes what nobody waits for, such as APIServices and statuses, and keeps it so; to be called once the server serves. */
  settle(): Promise<void>;
}

/** A server without options. */
export const DEFAULT_SETTINGS: ServerSettings = {
  authentication: { anonymous: { enabled: true } },
  staticTokens: new Map(),
  requestHeader: REQUEST_HEADER_DEFAULTS,
  authorization: AUTHORIZATION_DEFAULT,
  disabledAdmission: [],
  optional: [],
  flags: {},
};

export function createSecurity(options: SecurityOptions): Security {
  const { reader, transport, pki, clock, random, log, settings = DEFAULT_SETTINGS, dial = {} } = options;
  const serviceAccounts = settings.serviceAccounts ?? defaultServiceAccounts(issuerOf(options.clusterDomain));
  const { issuers, audiences, signingEndpoint, maxSeconds } = serviceAccounts;
  const signer = signingEndpoint ? new ExternalSigner({ socket: signingEndpoint, clock, log }) : undefined;
  const { signingKey = pki.serviceAccountKey.privateKey } = serviceAccounts;
  const tokens = new ServiceAccountTokens({
    keys: signer ?? new LocalKeys(signingKey, serviceAccounts.keys),
    settings: serviceAccounts,
    reader,
    clock,
    random,
    legacyUsed: legacyUseRecorder(transport, log),
  });
  const authentication = new Authentication({
    settings,
    serviceAccounts: tokens,
    issuers,
    audiences,
    reader,
    dial,
    clock,
    log,
  });
  const { authenticator } = authentication;
  const remote = { dial: dial.controlplane, clock, log };
  const authorizer = new AuthorizerChain(reader);
  authorizer.use(linksOf(settings.authorization, remote));
  const auditor = settings.audit && auditorOf(settings.audit, { ...remote, random });
  const policy = new PolicyReconciler({ reader, transport, log });

  const context: AdmissionContext = { reader, transport, authorizer, clock, random, log };
  const quota = new ResourceQuota(context);
  const admission = admissionPlugins(context, quota).filter(({ name }) => !settings.disabledAdmission.includes(name));

  const addresses = new ClusterAddresses({ reader, transport, random, log, cidrs: options.serviceCidrs });
  const ports = new NodePorts({ reader, random, range: options.nodePortRange });
  const services = new ServiceAllocator({ addresses, ports });
  const stored = options.stored ?? (() => transport() as Transport & StoredObjects);
  const kubelets = new KubeletConnections({
    reader,
    client: pki.kubeletClient,
    ...(options.verifyKubelets === false ? {} : { ca: pki.ca }),
  });

  const createHandlers = [
    ...subjectAccessHandlers(authorizer, clock),
    ...tokenHandlers({ authenticator, tokens, reader, clock }),
    ...podHandlers({ reader, transport, stored, clock }),
  ];
  const metrics = new ResourceMetrics({ reader, kubelets, clock, log });
  const aggregator = new Aggregator({ reader, transport, pki, clock, random, log, own: [metrics] });
  const fairness = new Fairness({ clock });
  const flows = new FairnessObjects({ fairness, reader, transport, clock, log });
  return {
    aggregator,
    fairness,
    auditor,
    tokens,
    optional: settings.optional,
    flags: settings.flags,
    authenticators: [authenticator],
    authorizer,
    admission,
    allocators: [services],
    createHandlers: createHandlers.map(handler => admitted(handler, admission)),
    connectHandlers: [...podStreams({ reader, kubelets, authorizer }), ...proxies({ reader, kubelets, random })],
    openid: () => tokens.discovery(),
    async follow(signal) {
      signal.addEventListener(
        'abort',
        () => {
          authentication.close();
          authorizer.close();
        },
        { once: true },
      );
      await Promise.all([
        authentication.follow(signal),
        signer?.follow(signal),
        followAuthorization(authorizer, settings, { ...remote, signal }),
      ]);
    },
    async bootstrap() {
      await signer?.start({ maxSeconds });
      await ensureBootstrapObjects(reader(), transport());
      const { serviceCidrs: cidrs, advertise } = options;
      const kubernetes = { reader, transport, clock, log, cidrs, advertise };
      await Promise.all([policy.bootstrap(), flows.bootstrap(), ensureKubernetesService(kubernetes)]);
      keepKubernetesService(kubernetes);
      policy.watchAggregation();
      quota.start();
    },
    async settle() {
      flows.follow();
      new PolicyStatuses({ reader, transport, log }).follow();
      new AllocationRepair({ addresses, ports, reader, transport, clock, log }).start();
      await aggregator.bootstrap();
      aggregator.start();
    },
  };
}

/** Writes the day of a Secret token's last use onto the Secret, one write at a time for each. */
function legacyUseRecorder(transport: () => Transport, log: Logger) {
  const writing = new Set<string>();
  return ({ namespace, name }: { readonly namespace: string; readonly name: string }, day: string): void => {
    const key = `${namespace}/${name}`;
    if (writing.has(key)) return;
    writing.add(key);
    const labels = { 'kubernetes.io/legacy-token-last-used': day };
    void transport()
      .patch({ of: SECRETS, namespace, name }, { metadata: { labels } }, 'application/merge-patch+json')
      .catch(error => log.warn('the last use of a token could not be written down', { key, error: messageOf(error) }))
      .finally(() => writing.delete(key));
  };
}

/** The handler behind admission: a kubelet may ask only for tokens and evictions of its own pods. */
function admitted(handler: CreateHandler, admission: readonly AdmissionPlugin[]): CreateHandler {
  return {
    ...handler,
    async create(sent, request) {
      const body = { ...sent, metadata: sent.metadata ?? ({} as KubeObject['metadata']) };
      const { group, version, resource } = handler.of;
      const admissionRequest = {
        operation: 'CREATE' as const,
        attributes: request.attributes,
        info: resourceByName(group, version, resource)!,
        object: body,
        oldObject: undefined,
        dryRun: request.dryRun,
        warn: (message: string) => request.warn(message),
        annotate: request.annotate,
      };
      for (const plugin of admission) await plugin.mutate?.(admissionRequest);
      for (const plugin of admission) await plugin.validate?.(admissionRequest);
      return handler.create(body, request);
    },
  };
}
