/**
 * What of the kubelet's behaviour can be set, in upstream's words (KubeletConfiguration), with its defaults. Invariant: what
 * `/configz` shows is what is done; a field that nothing follows is not here. How it is read from a file:
 * `configuration-file.ts`.
 */

import type { Taint } from '../api/core/v1.gen.ts';
import type { TracingSettings } from '../base/tracing/configuration.ts';

export const EVICTION_SIGNALS = [
  'memory.available',
  'nodefs.available',
  'nodefs.inodesFree',
  'imagefs.available',
  'imagefs.inodesFree',
  'pid.available',
] as const;
export type EvictionSignal = (typeof EVICTION_SIGNALS)[number];
/** Signal to a quantity or a percentage of the capacity. */
export type Thresholds = Readonly<Partial<Record<EvictionSignal, string>>>;

export const TOPOLOGY_POLICIES = ['none', 'best-effort', 'restricted', 'single-numa-node'] as const;

/** Who may come in by the kubelet's port, beside client certificates of the cluster's authority. */
export interface KubeletAuthentication {
  readonly anonymous: boolean;
  /** Bearer tokens, which the API server is asked about; for so long its answer counts. */
  readonly webhook: boolean;
  readonly cacheSeconds: number;
  /** File of certificates in the place of the cluster's authority. */
  readonly clientCaFile?: string;
}
export interface KubeletAuthorization {
  readonly mode: 'Webhook' | 'AlwaysAllow';
  readonly allowedSeconds: number;
  readonly refusedSeconds: number;
}

export interface KubeletConfiguration {
  readonly authentication: KubeletAuthentication;
  readonly authorization: KubeletAuthorization;
  readonly evictionHard: Thresholds;
  readonly evictionSoft: Thresholds;
  /** How long a soft threshold must have been crossed; one for each of `evictionSoft`. */
  readonly evictionSoftGracePeriodSeconds: Readonly<Partial<Record<EvictionSignal, number>>>;
  /** What a pod evicted by a soft threshold gets at most to end. */
  readonly evictionMaxPodGracePeriod: number;
  /** How far beyond its threshold a signal must come before nothing more is reclaimed for it. */
  readonly evictionMinimumReclaim: Thresholds;
  readonly evictionPressureTransitionPeriodSeconds: number;
  readonly maxPods: number;
  /** Processes and threads of one pod; -1 for no limit. */
  readonly podPidsLimit: number;
  readonly systemReserved: Readonly<Record<string, string>>;
  readonly kubeReserved: Readonly<Record<string, string>>;
  /** Names, or patterns that end in `*`. */
  readonly allowedUnsafeSysctls: readonly string[];
  /** Folder of static pods' manifests. */
  readonly staticPodPath?: string;
  readonly containerLogMaxBytes: number;
  /** The one that is written and those before it. */
  readonly containerLogMaxFiles: number;
  /** Longest pause before a crashed container runs again. */
  readonly crashLoopBackOffSecondsMax: number;
  /** A pod that names no seccomp profile gets the runtime's default one. */
  readonly seccompDefault: boolean;
  /** Users and groups of a pod that has a user namespace of its own: a multiple of 65536. */
  readonly idsPerPod: number;
  /** `static`: containers of guaranteed pods that ask for whole processors have them alone. */
  readonly cpuManagerPolicy: 'none' | 'static';
  readonly cpuManagerPolicyOptions: Readonly<Record<string, string>>;
  /** A list as `0-1,4`: never anybody's alone; '' for as many as are reserved. */
  readonly reservedSystemCPUs: string;
  /** `Static`: containers of guaranteed pods are held to the memory of one NUMA node. */
  readonly memoryManagerPolicy: 'None' | 'Static';
  readonly reservedMemory: readonly { readonly numaNode: number; readonly limits: Readonly<Record<string, string>> }[];
  /** On a machine with one NUMA node all of them come to the same. */
  readonly topologyManagerPolicy: (typeof TOPOLOGY_POLICIES)[number];
  /** Folder of FlexVolume drivers. */
  readonly volumePluginDir: string;
  /** `/logs/` of the kubelet's port. */
  readonly enableSystemLogHandler: boolean;
  /** Of a kubelet by itself: the cluster's signer is asked for its client certificate, for its serving one. */
  readonly rotateCertificates: boolean;
  readonly serverTLSBootstrap: boolean;
  /** Where the kubelet's spans go; absent: nothing is traced. */
  readonly tracing?: TracingSettings;
  /** Set when the node is made. */
  readonly registerWithTaints: readonly Taint[];
}

export const CONFIGURATION_DEFAULT: KubeletConfiguration = {
  authentication: { anonymous: false, webhook: true, cacheSeconds: 120 },
  authorization: { mode: 'Webhook', allowedSeconds: 300, refusedSeconds: 30 },
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '10%',
    'nodefs.inodesFree': '5%',
    'imagefs.available': '15%',
    'imagefs.inodesFree': '5%',
  },
  evictionSoft: {},
  evictionSoftGracePeriodSeconds: {},
  evictionMaxPodGracePeriod: 0,
  evictionMinimumReclaim: {},
  evictionPressureTransitionPeriodSeconds: 300,
  maxPods: 110,
  podPidsLimit: -1,
  systemReserved: {},
  kubeReserved: {},
  allowedUnsafeSysctls: [],
  containerLogMaxBytes: 10 * 1024 * 1024,
  containerLogMaxFiles: 5,
  crashLoopBackOffSecondsMax: 300,
  seccompDefault: false,
  idsPerPod: 65536,
  cpuManagerPolicy: 'none',
  cpuManagerPolicyOptions: {},
  reservedSystemCPUs: '',
  memoryManagerPolicy: 'None',
  reservedMemory: [],
  topologyManagerPolicy: 'none',
  volumePluginDir: '/usr/libexec/kubernetes/kubelet-plugins/volume/exec/',
  enableSystemLogHandler: true,
  rotateCertificates: false,
  serverTLSBootstrap: false,
  registerWithTaints: [],
};

/** As upstream's `/configz` spells it. */
export function configzOf(
  configuration: KubeletConfiguration,
  node: {
    readonly address: string;
    readonly port: number;
    readonly clusterDomain: string;
    readonly clusterDNS: readonly string[];
  },
): object {
  const {
    evictionPressureTransitionPeriodSeconds,
    evictionSoftGracePeriodSeconds,
    containerLogMaxBytes,
    crashLoopBackOffSecondsMax,
    idsPerPod,
    authentication,
    authorization,
    ...rest
  } = configuration;
  const seconds = (of: Readonly<Record<string, number>>) =>
    Object.fromEntries(Object.entries(of).map(([name, value]) => [name, `${value}s`]));
  return {
    kind: 'KubeletConfiguration',
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    ...node,
    ...rest,
    authentication: {
      anonymous: { enabled: authentication.anonymous },
      webhook: { enabled: authentication.webhook, cacheTTL: `${authentication.cacheSeconds}s` },
      x509: authentication.clientCaFile ? { clientCAFile: authentication.clientCaFile } : {},
    },
    authorization: {
      mode: authorization.mode,
      webhook: {
        cacheAuthorizedTTL: `${authorization.allowedSeconds}s`,
        cacheUnauthorizedTTL: `${authorization.refusedSeconds}s`,
      },
    },
    evictionSoftGracePeriod: seconds(evictionSoftGracePeriodSeconds),
    evictionPressureTransitionPeriod: `${evictionPressureTransitionPeriodSeconds}s`,
    containerLogMaxSize: String(containerLogMaxBytes),
    crashLoopBackOff: { maxContainerRestartPeriod: `${crashLoopBackOffSecondsMax}s` },
    userNamespaces: { idsPerPod },
    cgroupsPerQOS: true,
    enforceNodeAllocatable: ['pods'],
    cgroupDriver: 'cgroupfs',
    protectKernelDefaults: false,
    enableSystemLogQuery: configuration.enableSystemLogHandler,
  };
}
