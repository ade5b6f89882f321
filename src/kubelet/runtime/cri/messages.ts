/**
 * Messages and calls of the Container Runtime Interface, version 1 (k8s.io/cri-api), as far as a node needs them: field numbers as
 * in its `.proto` file, names in camelCase. Facts only. Fields that an old runtime does not know it skips.
 */

import { call } from '../../../csi/calls.ts';
import { bytes, flag, integer, message, moment, repeated, schema, text, textMap } from '../../../csi/protobuf.ts';

const EMPTY = schema({});
const NUMBER = schema({ value: integer(1) });

export const NAMESPACE_MODE = { POD: 0, CONTAINER: 1, NODE: 2, TARGET: 3 } as const;
export const PROPAGATION = { private: 0, slave: 1, shared: 2 } as const;
export const PROFILE = { RUNTIME_DEFAULT: 0, UNCONFINED: 1, LOCALHOST: 2 } as const;
export const PROTOCOL = { TCP: 0, UDP: 1, SCTP: 2 } as const;
export const SANDBOX_READY = 0;
export const CONTAINER_STATES = ['created', 'running', 'exited', 'unknown'] as const;

const SELINUX = schema({ user: text(1), role: text(2), type: text(3), level: text(4) });
const NAMESPACES = schema({ network: integer(1), pid: integer(2), ipc: integer(3), targetId: text(4) });
const PROFILE_REFERENCE = schema({ profileType: integer(1), localhostRef: text(2) });
const METADATA = schema({ name: text(1), uid: text(2), namespace: text(3), attempt: integer(4) });
export const SANDBOX_CONFIG = schema({
  metadata: message(1, METADATA),
  hostname: text(2),
  logDirectory: text(3),
  portMappings: repeated(
    message(5, schema({ protocol: integer(1), containerPort: integer(2), hostPort: integer(3), hostIp: text(4) })),
  ),
  labels: textMap(6),
  annotations: textMap(7),
  linux: message(
    8,
    schema({
      cgroupParent: text(1),
      securityContext: message(
        2,
        schema({
          namespaceOptions: message(1, NAMESPACES),
          selinuxOptions: message(2, SELINUX),
          privileged: flag(6),
          seccomp: message(9, PROFILE_REFERENCE),
        }),
      ),
      sysctls: textMap(3),
    }),
  ),
});
const SANDBOX_ID = schema({ podSandboxId: text(1) });
const SANDBOX_STATUS = schema({
  id: text(1),
  metadata: message(2, METADATA),
  state: integer(3),
  createdMs: moment(4),
  network: message(5, schema({ ip: text(1), additionalIps: repeated(message(2, schema({ ip: text(1) }))) })),
});
const SANDBOX = schema({
  id: text(1),
  metadata: message(2, METADATA),
  state: integer(3),
  createdMs: moment(4),
  annotations: textMap(6),
});

export const RESOURCES = schema({
  cpuPeriod: integer(1),
  cpuQuota: integer(2),
  cpuShares: integer(3),
  memoryLimitInBytes: integer(4),
  oomScoreAdj: integer(5),
  cpusetCpus: text(6),
  cpusetMems: text(7),
  hugepageLimits: repeated(message(8, schema({ pageSize: text(1), limit: integer(2) }))),
  unified: textMap(9),
  memorySwapLimitInBytes: integer(10),
});
const IMAGE_SPEC = schema({ image: text(1) });
const CONTAINER_METADATA = schema({ name: text(1), attempt: integer(2) });
const MOUNT = schema({
  containerPath: text(1),
  hostPath: text(2),
  readonly: flag(3),
  selinuxRelabel: flag(4),
  propagation: integer(5),
});
export const CONTAINER_CONFIG = schema({
  metadata: message(1, CONTAINER_METADATA),
  image: message(2, IMAGE_SPEC),
  command: repeated(text(3)),
  args: repeated(text(4)),
  workingDir: text(5),
  envs: repeated(message(6, schema({ key: text(1), value: text(2) }))),
  mounts: repeated(message(7, MOUNT)),
  devices: repeated(message(8, schema({ containerPath: text(1), hostPath: text(2), permissions: text(3) }))),
  labels: textMap(9),
  annotations: textMap(10),
  logPath: text(11),
  stdin: flag(12),
  stdinOnce: flag(13),
  tty: flag(14),
  linux: message(
    15,
    schema({
      resources: message(1, RESOURCES),
      securityContext: message(
        2,
        schema({
          capabilities: message(1, schema({ add: repeated(text(1)), drop: repeated(text(2)) })),
          privileged: flag(2),
          namespaceOptions: message(3, NAMESPACES),
          selinuxOptions: message(4, SELINUX),
          runAsUser: message(5, NUMBER),
          runAsGroup: message(12, NUMBER),
          runAsUsername: text(6),
          readonlyRootfs: flag(7),
          supplementalGroups: repeated(integer(8)),
          noNewPrivs: flag(11),
          maskedPaths: repeated(text(13)),
          readonlyPaths: repeated(text(14)),
          seccomp: message(15, PROFILE_REFERENCE),
          apparmor: message(16, PROFILE_REFERENCE),
        }),
      ),
    }),
  ),
});
const CONTAINER_ID = schema({ containerId: text(1) });
const CONTAINER = schema({
  id: text(1),
  podSandboxId: text(2),
  metadata: message(3, CONTAINER_METADATA),
  state: integer(6),
  createdMs: moment(7),
  annotations: textMap(9),
});
const CONTAINER_STATUS = schema({
  id: text(1),
  metadata: message(2, CONTAINER_METADATA),
  state: integer(3),
  createdMs: moment(4),
  startedMs: moment(5),
  finishedMs: moment(6),
  exitCode: integer(7),
  reason: text(10),
  message: text(11),
  annotations: textMap(13),
});
const FILTER = schema({ id: text(1), labelSelector: textMap(3) });
const CONTAINER_FILTER = schema({ id: text(1), labelSelector: textMap(4) });
const IMAGE = schema({ id: text(1), repoTags: repeated(text(2)), repoDigests: repeated(text(3)), size: integer(4) });
const URL_REPLY = schema({ url: text(1) });

const runtime = (name: string) => `/runtime.v1.RuntimeService/${name}`;
const images = (name: string) => `/runtime.v1.ImageService/${name}`;

export const CRI_CALLS = {
  version: call(
    runtime('Version'),
    schema({ version: text(1) }),
    schema({ runtimeName: text(2), runtimeVersion: text(3) }),
  ),
  status: call(
    runtime('Status'),
    EMPTY,
    schema({
      status: message(
        1,
        schema({
          conditions: repeated(
            message(1, schema({ type: text(1), status: flag(2), reason: text(3), message: text(4) })),
          ),
        }),
      ),
    }),
  ),
  runPodSandbox: call(
    runtime('RunPodSandbox'),
    schema({ config: message(1, SANDBOX_CONFIG), runtimeHandler: text(2) }),
    SANDBOX_ID,
  ),
  stopPodSandbox: call(runtime('StopPodSandbox'), SANDBOX_ID, EMPTY),
  removePodSandbox: call(runtime('RemovePodSandbox'), SANDBOX_ID, EMPTY),
  podSandboxStatus: call(
    runtime('PodSandboxStatus'),
    schema({ podSandboxId: text(1), verbose: flag(2) }),
    schema({ status: message(1, SANDBOX_STATUS), info: textMap(2) }),
  ),
  listPodSandbox: call(
    runtime('ListPodSandbox'),
    schema({ filter: message(1, FILTER) }),
    schema({ items: repeated(message(1, SANDBOX)) }),
  ),
  createContainer: call(
    runtime('CreateContainer'),
    schema({ podSandboxId: text(1), config: message(2, CONTAINER_CONFIG), sandboxConfig: message(3, SANDBOX_CONFIG) }),
    CONTAINER_ID,
  ),
  startContainer: call(runtime('StartContainer'), CONTAINER_ID, EMPTY),
  stopContainer: call(runtime('StopContainer'), schema({ containerId: text(1), timeout: integer(2) }), EMPTY),
  removeContainer: call(runtime('RemoveContainer'), CONTAINER_ID, EMPTY),
  listContainers: call(
    runtime('ListContainers'),
    schema({ filter: message(1, CONTAINER_FILTER) }),
    schema({ containers: repeated(message(1, CONTAINER)) }),
  ),
  containerStatus: call(
    runtime('ContainerStatus'),
    schema({ containerId: text(1), verbose: flag(2) }),
    schema({ status: message(1, CONTAINER_STATUS), info: textMap(2) }),
  ),
  updateContainerResources: call(
    runtime('UpdateContainerResources'),
    schema({ containerId: text(1), linux: message(2, RESOURCES) }),
    EMPTY,
  ),
  reopenContainerLog: call(runtime('ReopenContainerLog'), CONTAINER_ID, EMPTY),
  execSync: call(
    runtime('ExecSync'),
    schema({ containerId: text(1), cmd: repeated(text(2)), timeout: integer(3) }),
    schema({ stdout: bytes(1), stderr: bytes(2), exitCode: integer(3) }),
  ),
  exec: call(
    runtime('Exec'),
    schema({
      containerId: text(1),
      cmd: repeated(text(2)),
      tty: flag(3),
      stdin: flag(4),
      stdout: flag(5),
      stderr: flag(6),
    }),
    URL_REPLY,
  ),
  attach: call(
    runtime('Attach'),
    schema({ containerId: text(1), stdin: flag(2), tty: flag(3), stdout: flag(4), stderr: flag(5) }),
    URL_REPLY,
  ),
  portForward: call(runtime('PortForward'), schema({ podSandboxId: text(1), port: repeated(integer(2)) }), URL_REPLY),
  listImages: call(images('ListImages'), EMPTY, schema({ images: repeated(message(1, IMAGE)) })),
  imageStatus: call(
    images('ImageStatus'),
    schema({ image: message(1, IMAGE_SPEC) }),
    schema({ image: message(1, IMAGE) }),
  ),
  pullImage: call(images('PullImage'), schema({ image: message(1, IMAGE_SPEC) }), schema({ imageRef: text(1) })),
  removeImage: call(images('RemoveImage'), schema({ image: message(1, IMAGE_SPEC) }), EMPTY),
} as const;
