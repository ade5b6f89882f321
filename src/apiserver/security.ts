/**
 * Everything that decides about a request, put together: who asks, what they may do, what admission makes of it, which
 * addresses Services get, and the handlers of reviews, tokens, bindings and streams. `bootstrap` writes what every cluster
 * has from the start. Nothing reads the cache before the first request or `bootstrap`.
 */

import { resourceByName } from '../api/resources.ts';
import type { Clock } from '../base/clock.ts';
import { CLUSTER_DOMAIN } from '../base/cluster-defaults.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Transport } from '../client/transport.ts';
import { ensureBootstrapObjects } from './admission/bootstrap-objects.ts';
import type { AdmissionContext } from './admission/context.ts';
import { admissionPlugins } from './admission/registry.ts';
import { ResourceQuota } from './admission/resource-quota.ts';
import { Aggregator } from './aggregation/aggregator.ts';
import { AllocationRepair } from './allocators/allocation-repair.ts';
import { ClusterAddresses } from './allocators/cluster-addresses.ts';
import { ensureKubernetesService, keepKubernetesService } from './allocators/kubernetes-service.ts';
import { NodePorts } from './allocators/node-ports.ts';
import { ServiceAllocator } from './allocators/service-allocator.ts';
import { forApiServer, RequestAuthenticator } from './authn/authenticator.ts';
import { BootstrapTokens } from './authn/bootstrap-tokens.ts';
import { ServiceAccountTokens } from './authn/service-account-tokens.ts';
import { staticTokens } from './authn/static-tokens.ts';
import { TokenUnion } from './authn/token-authenticator.ts';
import { AuthorizerChain } from './authz/authorizer.ts';
import { PolicyReconciler } from './authz/policy-reconciler.ts';
import type { Pki } from './certificates/pki.ts';
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
  UserInfo,
} from './request.ts';
import { podHandlers } from './reviews/pods.ts';
import { subjectAccessHandlers } from './reviews/subject-access.ts';
import { tokenHandlers } from './reviews/tokens.ts';
import { KubeletConnections } from './streaming/kubelet-connection.ts';
import { podStreams } from './streaming/pod-streams.ts';
import { proxies } from './streaming/proxies.ts';

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
  /** Bearer tokens given on the command line. */
  readonly staticTokens?: ReadonlyMap<string, UserInfo>;
  /** Admission plugins left out, by name. */
  readonly disabledAdmission?: readonly string[];
  /** False: kubelets' serving certificates are not checked, for nodes that sign their own. Default true: the cluster's CA. */
  readonly verifyKubelets?: boolean;
}

export interface Security {
  readonly authenticators: readonly Authenticator[];
  readonly authorizer: Authorizer;
  readonly admission: readonly AdmissionPlugin[];
  readonly allocators: readonly Allocator[];
  readonly createHandlers: readonly CreateHandler[];
  readonly connectHandlers: readonly ConnectHandler[];
  /** Bodies of `/.well-known/openid-configuration` and `/openid/v1/jwks`. */
  readonly openid: () => { configuration: object; keys: object };
  readonly aggregator: Aggregator;
  /** Writes what is missing of the system's own objects; idempotent, and cheap when nothing is. */
  bootstrap(): Promise<void>;
  /** Writes what nobody waits for, such as APIServices; to be called once the server serves. */
  settle(): Promise<void>;
}

export function createSecurity(options: SecurityOptions): Security {
  const { reader, transport, pki, clock, random, log } = options;
  const issuer = `https://kubernetes.default.svc.${options.clusterDomain ?? CLUSTER_DOMAIN}`;
  const audiences = [issuer];
  const tokens = new ServiceAccountTokens({ keys: pki.serviceAccountKey, issuer, reader, clock, random });
  const authenticator = new RequestAuthenticator({
    tokens: new TokenUnion([
      tokens,
      forApiServer(
        new TokenUnion([staticTokens(options.staticTokens ?? new Map()), new BootstrapTokens({ reader, clock })]),
        audiences,
      ),
    ]),
    audiences,
  });
  const authorizer = new AuthorizerChain(reader);
  const policy = new PolicyReconciler({ reader, transport, log });

  const context: AdmissionContext = { reader, transport, authorizer, clock, random, log };
  const quota = new ResourceQuota(context);
  const disabled = options.disabledAdmission ?? [];
  const admission = admissionPlugins(context, quota).filter(plugin => !disabled.includes(plugin.name));

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
    ...subjectAccessHandlers(authorizer),
    ...tokenHandlers({ authenticator, tokens, audiences, reader, clock }),
    ...podHandlers({ reader, transport, stored, clock }),
  ];
  const metrics = new ResourceMetrics({ reader, kubelets, clock, log });
  const aggregator = new Aggregator({ reader, transport, pki, clock, random, log, own: [metrics] });
  return {
    aggregator,
    authenticators: [authenticator],
    authorizer,
    admission,
    allocators: [services],
    createHandlers: createHandlers.map(handler => admitted(handler, admission)),
    connectHandlers: [...podStreams({ reader, kubelets, authorizer }), ...proxies({ reader, kubelets, random })],
    openid: () => tokens.discovery(),
    async bootstrap() {
      await ensureBootstrapObjects(reader(), transport());
      const { serviceCidrs: cidrs, advertise } = options;
      const kubernetes = { reader, transport, clock, log, cidrs, advertise };
      await Promise.all([policy.bootstrap(), ensureKubernetesService(kubernetes)]);
      keepKubernetesService(kubernetes);
      policy.watchAggregation();
      new AllocationRepair({ addresses, ports, reader, transport, clock, log }).start();
      quota.start();
    },
    async settle() {
      await aggregator.bootstrap();
      aggregator.start();
    },
  };
}

/** The handler behind admission: a kubelet may ask only for tokens and evictions of its own pods. */
function admitted(handler: CreateHandler, admission: readonly AdmissionPlugin[]): CreateHandler {
  return {
    ...handler,
    async create(sent, request) {
      const body = { ...sent, metadata: sent.metadata ?? { name: '' } };
      const { group, version, resource } = handler.of;
      const admissionRequest = {
        operation: 'CREATE' as const,
        attributes: request.attributes,
        info: resourceByName(group, version, resource)!,
        object: body,
        oldObject: undefined,
        dryRun: request.dryRun,
        warn: (message: string) => request.warn(message),
      };
      for (const plugin of admission) await plugin.mutate?.(admissionRequest);
      for (const plugin of admission) await plugin.validate?.(admissionRequest);
      return handler.create(body, request);
    },
  };
}
