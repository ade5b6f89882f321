/**
 * A KubeletConfiguration file (`kubelet.config.k8s.io/v1beta1`, YAML or JSON) as what differs from the defaults. Pure. Invariant:
 * every field either is followed or the file is refused, with the field's path: one that Kubernetes does not know as a mistake,
 * one that this kubelet does not follow with what there is instead. A field set to upstream's own default says nothing and passes.
 */

import { parse } from 'yaml';
import { parseNano, quantityValue } from '../api/machinery/quantity.ts';
import { failure } from '../base/errors.ts';
import { type TracingSettings, tracingEndpoint, tracingProblems } from '../base/tracing/configuration.ts';
import {
  CONFIGURATION_DEFAULT,
  EVICTION_SIGNALS,
  type EvictionSignal,
  type KubeletConfiguration,
  TOPOLOGY_POLICIES,
} from './configuration.ts';
import { parseCpuSet } from './cpus/cpu-set.ts';

const API_VERSION = 'kubelet.config.k8s.io/v1beta1';
const KIND = 'KubeletConfiguration';
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const RESERVABLE = ['cpu', 'memory', 'ephemeral-storage'];
const TAINT_EFFECTS = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'];
const ALIASES_MAX = 100;

type Part = Partial<KubeletConfiguration>;
type Reader = (value: unknown, path: string) => Part;

function refuse(path: string, what: string): never {
  throw failure(422, 'Invalid', `${path}: ${what}`);
}

function wholeNumber(value: unknown, path: string, range: { readonly min: number; readonly max?: number }): number {
  const { min, max = Number.MAX_SAFE_INTEGER } = range;
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
    refuse(path, `Invalid value: ${JSON.stringify(value)}: must be a whole number of at least ${min}`);
  return value as number;
}
function text(value: unknown, path: string): string {
  return typeof value === 'string' ? value : refuse(path, `Invalid value: ${JSON.stringify(value)}: must be a string`);
}
function seconds(value: unknown, path: string): number {
  const duration = text(value, path);
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(duration) && duration !== '0')
    refuse(path, `Invalid value: ${JSON.stringify(value)}: must be a duration such as 30s or 1h30m`);
  let ms = 0;
  for (const [, amount, unit] of duration.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    ms += Number(amount) * UNIT_MS[unit!]!;
  return ms / 1000;
}
function oneOf<T extends string>(value: unknown, path: string, values: readonly T[]): T {
  return values.includes(value as T)
    ? (value as T)
    : refuse(
        path,
        `Unsupported value: ${JSON.stringify(value)}: supported values: ${values.map(one => JSON.stringify(one)).join(', ')}`,
      );
}
function truth(value: unknown, path: string): boolean {
  return typeof value === 'boolean' ? value : refuse(path, 'Invalid value: must be true or false');
}
function list(value: unknown, path: string): readonly unknown[] {
  return Array.isArray(value) ? value : refuse(path, 'Invalid value: must be a list');
}
function mapping(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    refuse(path, 'Invalid value: must be a mapping');
  return value as Record<string, unknown>;
}
/** The fields of a mapping that may be left out. */
function fieldsOf(value: unknown, path: string, names: readonly string[]): Record<string, unknown> {
  if (value === undefined || value === null) return {};
  const fields = mapping(value, path);
  for (const name of Object.keys(fields)) if (!names.includes(name)) refuse(`${path}.${name}`, 'unknown field');
  return fields;
}
/** As upstream, no time at all means the default. */
function secondsOr(value: unknown, path: string, fallback: number): number {
  return value === undefined ? fallback : seconds(value, path) || fallback;
}
function bySignal<T>(
  value: unknown,
  path: string,
  read: (value: unknown, path: string) => T,
): Partial<Record<EvictionSignal, T>> {
  return Object.fromEntries(
    Object.entries(mapping(value, path)).map(([signal, one]) => {
      if (!EVICTION_SIGNALS.includes(signal as EvictionSignal))
        refuse(path, `unknown eviction signal ${JSON.stringify(signal)}; known here: ${EVICTION_SIGNALS.join(', ')}`);
      return [signal, read(one, `${path}[${signal}]`)];
    }),
  );
}
/** As upstream: a quantity or a percentage, not negative; `100%` of a hard threshold would leave nothing. */
function threshold(value: unknown, path: string): string {
  const written = String(value);
  const percentage = /^(\d+(?:\.\d+)?)%$/.exec(written)?.[1];
  const nano = percentage === undefined ? parseNano(written) : BigInt(Math.round(Number(percentage)));
  if (nano === undefined || nano < 0n || Number(percentage ?? 0) > 100)
    refuse(path, `Invalid value: ${JSON.stringify(value)}: must be a quantity or a percentage, and not negative`);
  return written;
}
function reserved(value: unknown, path: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(mapping(value, path)).map(([name, amount]) => {
      if (!RESERVABLE.includes(name))
        refuse(path, `cannot reserve ${JSON.stringify(name)}; can be reserved: ${RESERVABLE.join(', ')}`);
      const nano = parseNano(String(amount));
      if (nano === undefined || nano < 0n)
        refuse(`${path}[${name}]`, `Invalid value: ${JSON.stringify(amount)}: must be a quantity, and not negative`);
      return [name, String(amount)];
    }),
  );
}

const IDS_PER_POD_MULTIPLE = 65536;
/** The kernel's ids have 32 bits. */
const IDS_PER_POD_MAX = 2 ** 31;
const CPU_POLICY_OPTIONS = ['full-pcpus-only'];

/** Fields that are followed. */
const READERS: Readonly<Record<string, Reader>> = {
  authentication: (value, path) => {
    const of = { ...CONFIGURATION_DEFAULT.authentication };
    const { anonymous, webhook, x509 } = fieldsOf(value, path, ['anonymous', 'webhook', 'x509']);
    const { enabled: anyone } = fieldsOf(anonymous, `${path}.anonymous`, ['enabled']);
    const { enabled, cacheTTL } = fieldsOf(webhook, `${path}.webhook`, ['enabled', 'cacheTTL']);
    const { clientCAFile } = fieldsOf(x509, `${path}.x509`, ['clientCAFile']);
    return {
      authentication: {
        anonymous: anyone === undefined ? of.anonymous : truth(anyone, `${path}.anonymous.enabled`),
        webhook: enabled === undefined ? of.webhook : truth(enabled, `${path}.webhook.enabled`),
        cacheSeconds: secondsOr(cacheTTL, `${path}.webhook.cacheTTL`, of.cacheSeconds),
        ...(clientCAFile ? { clientCaFile: text(clientCAFile, `${path}.x509.clientCAFile`) } : {}),
      },
    };
  },
  authorization: (value, path) => {
    const of = CONFIGURATION_DEFAULT.authorization;
    const { mode, webhook } = fieldsOf(value, path, ['mode', 'webhook']);
    const { cacheAuthorizedTTL, cacheUnauthorizedTTL } = fieldsOf(webhook, `${path}.webhook`, [
      'cacheAuthorizedTTL',
      'cacheUnauthorizedTTL',
    ]);
    return {
      authorization: {
        mode: mode === undefined ? of.mode : oneOf(mode, `${path}.mode`, ['Webhook', 'AlwaysAllow'] as const),
        allowedSeconds: secondsOr(cacheAuthorizedTTL, `${path}.webhook.cacheAuthorizedTTL`, of.allowedSeconds),
        refusedSeconds: secondsOr(cacheUnauthorizedTTL, `${path}.webhook.cacheUnauthorizedTTL`, of.refusedSeconds),
      },
    };
  },
  evictionHard: (value, path) => ({ evictionHard: bySignal(value, path, threshold) }),
  evictionSoft: (value, path) => ({ evictionSoft: bySignal(value, path, threshold) }),
  evictionSoftGracePeriod: (value, path) => ({ evictionSoftGracePeriodSeconds: bySignal(value, path, seconds) }),
  evictionMaxPodGracePeriod: (value, path) => ({ evictionMaxPodGracePeriod: wholeNumber(value, path, { min: 0 }) }),
  evictionMinimumReclaim: (value, path) => ({ evictionMinimumReclaim: bySignal(value, path, threshold) }),
  evictionPressureTransitionPeriod: (value, path) => ({
    evictionPressureTransitionPeriodSeconds: seconds(value, path),
  }),
  maxPods: (value, path) => ({ maxPods: wholeNumber(value, path, { min: 0 }) }),
  podPidsLimit: (value, path) => ({ podPidsLimit: wholeNumber(value, path, { min: -1 }) }),
  systemReserved: (value, path) => ({ systemReserved: reserved(value, path) }),
  kubeReserved: (value, path) => ({ kubeReserved: reserved(value, path) }),
  allowedUnsafeSysctls: (value, path) => ({
    allowedUnsafeSysctls: list(value, path).map((one, i) => text(one, `${path}[${i}]`)),
  }),
  staticPodPath: (value, path) => ({ staticPodPath: text(value, path) }),
  volumePluginDir: (value, path) => ({ volumePluginDir: text(value, path) }),
  containerLogMaxSize: (value, path) => {
    const bytes = parseNano(String(value)) === undefined ? 0 : quantityValue(String(value));
    if (bytes <= 0) refuse(path, `Invalid value: ${JSON.stringify(value)}: must be a positive quantity`);
    return { containerLogMaxBytes: bytes };
  },
  containerLogMaxFiles: (value, path) => ({ containerLogMaxFiles: wholeNumber(value, path, { min: 2 }) }),
  crashLoopBackOff: (value, path) => {
    const { maxContainerRestartPeriod, ...others } = mapping(value, path);
    for (const name of Object.keys(others)) refuse(`${path}.${name}`, 'unknown field');
    const secondsMax = seconds(maxContainerRestartPeriod, `${path}.maxContainerRestartPeriod`);
    if (secondsMax < 1 || secondsMax > 300)
      refuse(`${path}.maxContainerRestartPeriod`, 'Invalid value: must be between 1s and 300s');
    return { crashLoopBackOffSecondsMax: secondsMax };
  },
  seccompDefault: (value, path) => ({ seccompDefault: truth(value, path) }),
  enableSystemLogHandler: (value, path) => ({ enableSystemLogHandler: truth(value, path) }),
  userNamespaces: (value, path) => {
    const { idsPerPod, ...others } = mapping(value, path);
    for (const name of Object.keys(others)) refuse(`${path}.${name}`, 'unknown field');
    if (idsPerPod === undefined || idsPerPod === null) return {};
    const ids = wholeNumber(idsPerPod, `${path}.idsPerPod`, { min: IDS_PER_POD_MULTIPLE });
    if (ids % IDS_PER_POD_MULTIPLE !== 0 || ids > IDS_PER_POD_MAX)
      refuse(`${path}.idsPerPod`, `Invalid value: ${ids}: must be a multiple of ${IDS_PER_POD_MULTIPLE}`);
    return { idsPerPod: ids };
  },
  rotateCertificates: (value, path) => ({ rotateCertificates: truth(value, path) }),
  serverTLSBootstrap: (value, path) => ({ serverTLSBootstrap: truth(value, path) }),
  cpuManagerPolicy: (value, path) => ({ cpuManagerPolicy: oneOf<'none' | 'static'>(value, path, ['none', 'static']) }),
  cpuManagerPolicyOptions: (value, path) => {
    const options = mapping(value, path);
    for (const [name, set] of Object.entries(options)) {
      if (!CPU_POLICY_OPTIONS.includes(name))
        refuse(`${path}.${name}`, 'this kubelet does not follow it yet; leave it out');
      if (set !== 'true' && set !== 'false') refuse(`${path}.${name}`, 'Invalid value: must be "true" or "false"');
    }
    return { cpuManagerPolicyOptions: options as Record<string, string> };
  },
  reservedSystemCPUs: (value, path) => {
    try {
      parseCpuSet(text(value, path));
    } catch (error) {
      refuse(path, `Invalid value: ${(error as Error).message}`);
    }
    return { reservedSystemCPUs: text(value, path) };
  },
  memoryManagerPolicy: (value, path) => ({
    memoryManagerPolicy: oneOf<'None' | 'Static'>(value, path, ['None', 'Static']),
  }),
  reservedMemory: (value, path) => ({
    reservedMemory: list(value, path).map((one, i) => {
      const { numaNode, limits, ...others } = mapping(one, `${path}[${i}]`);
      for (const name of Object.keys(others)) refuse(`${path}[${i}].${name}`, 'unknown field');
      for (const [name, amount] of Object.entries(mapping(limits, `${path}[${i}].limits`))) {
        const place = `${path}[${i}].limits[${name}]`;
        if (name !== 'memory') refuse(place, 'this kubelet reserves "memory" only; leave it out');
        if ((parseNano(String(amount)) ?? 0n) <= 0n)
          refuse(place, `Invalid value: ${JSON.stringify(amount)}: must be a quantity, and not zero`);
      }
      return {
        numaNode: wholeNumber(numaNode, `${path}[${i}].numaNode`, { min: 0 }),
        limits: limits as Record<string, string>,
      };
    }),
  }),
  topologyManagerPolicy: (value, path) => ({ topologyManagerPolicy: oneOf(value, path, TOPOLOGY_POLICIES) }),
  topologyManagerScope: (value, path) => {
    oneOf(value, path, ['container', 'pod']);
    return {};
  },
  tracing: (value, path) => {
    const { endpoint, samplingRatePerMillion } = fieldsOf(value, path, ['endpoint', 'samplingRatePerMillion']);
    const tracing: TracingSettings = {
      ...(endpoint === undefined || endpoint === null ? {} : { endpoint: text(endpoint, `${path}.endpoint`) }),
      ...(samplingRatePerMillion === undefined || samplingRatePerMillion === null
        ? {}
        : {
            samplingRatePerMillion: wholeNumber(samplingRatePerMillion, `${path}.samplingRatePerMillion`, {
              min: Number.MIN_SAFE_INTEGER,
            }),
          }),
    };
    for (const { field, value: given, detail } of tracingProblems(tracing))
      refuse(`${path}.${field}`, `Invalid value: ${JSON.stringify(given)}: ${detail}`);
    tracingEndpoint(tracing);
    return { tracing };
  },
  registerWithTaints: (value, path) => ({
    registerWithTaints: list(value, path).map((one, i) => {
      const { key, value: of, effect } = mapping(one, `${path}[${i}]`);
      return {
        key: text(key, `${path}[${i}].key`),
        ...(of === undefined ? {} : { value: text(of, `${path}[${i}].value`) }),
        effect: oneOf(effect, `${path}[${i}].effect`, TAINT_EFFECTS),
      };
    }),
  }),
};

/** Fields of Kubernetes that are done in one way here: that way may be named. */
const FIXED: Readonly<Record<string, unknown>> = {
  cgroupDriver: 'cgroupfs',
  cgroupsPerQOS: true,
  enforceNodeAllocatable: ['pods'],
  cpuCFSQuota: true,
  cpuCFSQuotaPeriod: '100ms',
  enableServer: true,
  registerNode: true,
  enableControllerAttachDetach: true,
  enableDebuggingHandlers: true,
  enableSystemLogQuery: true,
  makeIPTablesUtilChains: true,
  protectKernelDefaults: false,
  localStorageCapacityIsolation: true,
  nodeLeaseDurationSeconds: 40,
  nodeStatusReportFrequency: '5m',
  shutdownGracePeriod: '0s',
  shutdownGracePeriodCriticalPods: '0s',
  memorySwap: {},
  featureGates: {},
};
/** Fields of Kubernetes that something else says here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  clusterDNS: 'the cluster says it',
  clusterDomain: 'the cluster says it',
  tlsCertFile: 'the cluster issues certificates',
  tlsPrivateKeyFile: 'the cluster issues certificates',
  containerRuntimeEndpoint: 'crun under conmon runs containers',
  imageServiceEndpoint: 'images are kept by the cluster',
  imageGCHighThresholdPercent: 'see `collection` in images.yaml (docs/images.md)',
  imageGCLowThresholdPercent: 'see `collection` in images.yaml (docs/images.md)',
  imageMinimumGCAge: 'see `collection` in images.yaml (docs/images.md)',
  imageMaximumGCAge: 'see `collection` in images.yaml (docs/images.md)',
  serializeImagePulls: 'see `pulls` in images.yaml (docs/images.md)',
  maxParallelImagePulls: 'see `pulls` in images.yaml (docs/images.md)',
};
/** Fields of Kubernetes that nothing does here yet. */
const UNDONE: ReadonlySet<string> = new Set([
  ...['address', 'port', 'readOnlyPort', 'hostnameOverride', 'podCIDR', 'resolvConf', 'providerID'],
  ...['syncFrequency', 'fileCheckFrequency', 'httpCheckFrequency', 'staticPodURL', 'staticPodURLHeader'],
  ...['nodeStatusUpdateFrequency', 'runtimeRequestTimeout', 'streamingConnectionIdleTimeout', 'hairpinMode'],
  ...['podsPerCore', 'maxOpenFiles', 'contentType', 'kubeAPIQPS', 'kubeAPIBurst', 'registryPullQPS', 'registryBurst'],
  ...['eventRecordQPS', 'eventBurst', 'oomScoreAdj', 'failSwapOn', 'logging', 'volumeStatsAggPeriod'],
  ...['kubeletCgroups', 'systemCgroups', 'cgroupRoot', 'systemReservedCgroup', 'kubeReservedCgroup', 'qosReserved'],
  ...['cpuManagerReconcilePeriod', 'topologyManagerPolicyOptions'],
  ...['iptablesMasqueradeBit', 'iptablesDropBit', 'containerLogMaxWorkers', 'containerLogMonitorInterval'],
  ...['configMapAndSecretChangeDetectionStrategy', 'showHiddenMetricsForVersion', 'enableProfilingHandler'],
  'enableDebugFlagsHandler',
  ...[
    'tlsCipherSuites',
    'tlsMinVersion',
    'tlsCurvePreferences',
    'shutdownGracePeriodByPodPriority',
    'memoryThrottlingFactor',
  ],
  ...['healthzPort', 'healthzBindAddress', 'experimentalMemoryPSI', 'evictionSignals', 'mergeDefaultEvictionSettings'],
  ...['singleProcessOOMKill', 'imagePullCredentialsVerificationPolicy', 'preloadedImagesVerificationAllowlist'],
  ...['allowSwap', 'runOnce', 'nodeShutdown', 'podLogsDir', 'nodeStatusMaxImages', 'failCgroupV1'],
  ...['enableContentionProfiling', 'kernelMemcgNotification'],
]);

/** What the text says. Throws Invalid with the place of the first mistake. */
export function readConfigurationFile(source: string, name: string): Part {
  let parsed: unknown;
  try {
    parsed = parse(source, { version: '1.1', maxAliasCount: ALIASES_MAX, uniqueKeys: true });
  } catch (error) {
    refuse(name, (error as Error).message.split('\n')[0]!);
  }
  const { apiVersion, kind, ...fields } = mapping(parsed, name);
  if (apiVersion !== API_VERSION || kind !== KIND)
    refuse(name, `must have apiVersion: ${API_VERSION} and kind: ${KIND}`);
  let read: Part = {};
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    const path = `${name}: ${field}`;
    const reader = READERS[field];
    if (reader) read = { ...read, ...reader(value, path) };
    else if (Object.hasOwn(FIXED, field)) {
      if (JSON.stringify(value) !== JSON.stringify(FIXED[field]))
        refuse(path, `is ${JSON.stringify(FIXED[field])} here and cannot be ${JSON.stringify(value)}`);
    } else if (Object.hasOwn(ELSEWHERE, field)) refuse(path, `cannot be set here: ${ELSEWHERE[field]}`);
    else if (UNDONE.has(field)) refuse(path, 'this kubelet does not follow it yet; leave it out');
    else refuse(path, `unknown field "${field}"`);
  }
  return checked(read, name);
}

/** What belongs together is there together. */
function checked(read: Part, name: string): Part {
  for (const [signal, soft] of Object.entries(read.evictionSoft ?? {}) as [EvictionSignal, string][]) {
    if (read.evictionSoftGracePeriodSeconds?.[signal] === undefined)
      refuse(`${name}: evictionSoft`, `grace period must be specified for the soft eviction threshold ${signal}`);
    const hard = read.evictionHard?.[signal];
    if (hard?.endsWith('%') === soft.endsWith('%') && hard !== undefined && amountOf(soft) < amountOf(hard))
      refuse(`${name}: evictionSoft`, `threshold of ${signal} (${soft}) must not be below the hard one (${hard})`);
  }
  for (const signal of Object.keys(read.evictionSoftGracePeriodSeconds ?? {}) as EvictionSignal[])
    if (read.evictionSoft?.[signal] === undefined)
      refuse(`${name}: evictionSoftGracePeriod`, `there is no soft eviction threshold ${signal}`);
  const nodes = (read.reservedMemory ?? []).map(({ numaNode }) => numaNode);
  if (new Set(nodes).size < nodes.length) refuse(`${name}: reservedMemory`, 'a NUMA node stands there twice');
  return read;
}

const amountOf = (written: string): number =>
  written.endsWith('%') ? Number(written.slice(0, -1)) : quantityValue(written);
