/**
 * What of the kubelet's behaviour can be set, in upstream's words (KubeletConfiguration), with its defaults. Invariant: what
 * `/configz` shows is what is done; a field that nothing follows is not here.
 */

export type EvictionSignal =
  | 'memory.available'
  | 'nodefs.available'
  | 'nodefs.inodesFree'
  | 'imagefs.available'
  | 'imagefs.inodesFree'
  | 'pid.available';

export interface KubeletConfiguration {
  /** Signal to a quantity or a percentage of the capacity. */
  readonly evictionHard: Readonly<Partial<Record<EvictionSignal, string>>>;
  readonly evictionPressureTransitionPeriodSeconds: number;
  readonly maxPods: number;
  readonly systemReserved: Readonly<Record<string, string>>;
  readonly kubeReserved: Readonly<Record<string, string>>;
  /** Names, or patterns that end in `*`. */
  readonly allowedUnsafeSysctls: readonly string[];
  /** Folder of static pods' manifests. */
  readonly staticPodPath?: string;
}

export const CONFIGURATION_DEFAULT: KubeletConfiguration = {
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '10%',
    'nodefs.inodesFree': '5%',
    'imagefs.available': '15%',
    'imagefs.inodesFree': '5%',
  },
  evictionPressureTransitionPeriodSeconds: 300,
  maxPods: 110,
  systemReserved: {},
  kubeReserved: {},
  allowedUnsafeSysctls: [],
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
  const { evictionPressureTransitionPeriodSeconds, ...rest } = configuration;
  return {
    kind: 'KubeletConfiguration',
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    ...node,
    ...rest,
    evictionPressureTransitionPeriod: `${evictionPressureTransitionPeriodSeconds}s`,
    cgroupsPerQOS: true,
    enforceNodeAllocatable: ['pods'],
    cgroupDriver: 'cgroupfs',
    protectKernelDefaults: false,
  };
}
