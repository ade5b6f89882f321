/**
 * Messages of the Container Storage Interface, version 1 (container-storage-interface/spec), and of the kubelet's plugin
 * registration: field numbers as in their `.proto` files, names in camelCase. Facts only.
 */

import { flag, integer, message, repeated, schema, text, textMap } from './protobuf.ts';

export const EMPTY = schema({});

// What a plugin is.
export const PLUGIN_INFO = schema({ name: text(1), vendorVersion: text(2), manifest: textMap(3) });
const PLUGIN_SERVICE = schema({ type: integer(1) });
const PLUGIN_EXPANSION = schema({ type: integer(1) });
export const PLUGIN_CAPABILITIES = schema({
  capabilities: repeated(
    message(1, schema({ service: message(1, PLUGIN_SERVICE), volumeExpansion: message(2, PLUGIN_EXPANSION) })),
  ),
});
export const PLUGIN_SERVICES = { CONTROLLER_SERVICE: 1, VOLUME_ACCESSIBILITY_CONSTRAINTS: 2 } as const;
export const PLUGIN_EXPANSIONS = { ONLINE: 1, OFFLINE: 2 } as const;
export const PROBED = schema({ ready: message(1, schema({ value: flag(1) })) });

// Volumes.
export const ACCESS_MODES = {
  UNKNOWN: 0,
  SINGLE_NODE_WRITER: 1,
  SINGLE_NODE_READER_ONLY: 2,
  MULTI_NODE_READER_ONLY: 3,
  MULTI_NODE_SINGLE_WRITER: 4,
  MULTI_NODE_MULTI_WRITER: 5,
  SINGLE_NODE_SINGLE_WRITER: 6,
  SINGLE_NODE_MULTI_WRITER: 7,
} as const;
const MOUNT_VOLUME = schema({ fsType: text(1), mountFlags: repeated(text(2)), volumeMountGroup: text(3) });
export const VOLUME_CAPABILITY = schema({
  block: message(1, EMPTY),
  mount: message(2, MOUNT_VOLUME),
  accessMode: message(3, schema({ mode: integer(1) })),
});
const CAPACITY_RANGE = schema({ requiredBytes: integer(1), limitBytes: integer(2) });
const CONTENT_SOURCE = schema({
  snapshot: message(1, schema({ snapshotId: text(1) })),
  volume: message(2, schema({ volumeId: text(1) })),
});
const TOPOLOGY = schema({ segments: textMap(1) });
const TOPOLOGY_REQUIREMENT = schema({
  requisite: repeated(message(1, TOPOLOGY)),
  preferred: repeated(message(2, TOPOLOGY)),
});
const VOLUME = schema({
  capacityBytes: integer(1),
  volumeId: text(2),
  volumeContext: textMap(3),
  contentSource: message(4, CONTENT_SOURCE),
  accessibleTopology: repeated(message(5, TOPOLOGY)),
});
export const CREATE_VOLUME = schema({
  name: text(1),
  capacityRange: message(2, CAPACITY_RANGE),
  volumeCapabilities: repeated(message(3, VOLUME_CAPABILITY)),
  parameters: textMap(4),
  secrets: textMap(5),
  volumeContentSource: message(6, CONTENT_SOURCE),
  accessibilityRequirements: message(7, TOPOLOGY_REQUIREMENT),
  mutableParameters: textMap(8),
});
export const CREATED_VOLUME = schema({ volume: message(1, VOLUME) });
export const DELETE_VOLUME = schema({ volumeId: text(1), secrets: textMap(2) });

export const CONTROLLER_PUBLISH = schema({
  volumeId: text(1),
  nodeId: text(2),
  volumeCapability: message(3, VOLUME_CAPABILITY),
  readonly: flag(4),
  secrets: textMap(5),
  volumeContext: textMap(6),
});
export const CONTROLLER_PUBLISHED = schema({ publishContext: textMap(1) });
export const CONTROLLER_UNPUBLISH = schema({ volumeId: text(1), nodeId: text(2), secrets: textMap(3) });
export const VALIDATE_CAPABILITIES = schema({
  volumeId: text(1),
  volumeContext: textMap(2),
  volumeCapabilities: repeated(message(3, VOLUME_CAPABILITY)),
  parameters: textMap(4),
  secrets: textMap(5),
  mutableParameters: textMap(6),
});
export const VALIDATED_CAPABILITIES = schema({
  confirmed: message(
    1,
    schema({
      volumeContext: textMap(1),
      volumeCapabilities: repeated(message(2, VOLUME_CAPABILITY)),
      parameters: textMap(3),
    }),
  ),
  message: text(2),
});
export const GET_CAPACITY = schema({
  volumeCapabilities: repeated(message(1, VOLUME_CAPABILITY)),
  parameters: textMap(2),
  accessibleTopology: message(3, TOPOLOGY),
});
const INT64_VALUE = schema({ value: integer(1) });
export const CAPACITY = schema({
  availableCapacity: integer(1),
  maximumVolumeSize: message(2, INT64_VALUE),
  minimumVolumeSize: message(3, INT64_VALUE),
});
export const CONTROLLER_EXPAND = schema({
  volumeId: text(1),
  capacityRange: message(2, CAPACITY_RANGE),
  secrets: textMap(3),
  volumeCapability: message(4, VOLUME_CAPABILITY),
});
export const CONTROLLER_EXPANDED = schema({ capacityBytes: integer(1), nodeExpansionRequired: flag(2) });
export const CONTROLLER_MODIFY = schema({ volumeId: text(1), secrets: textMap(2), mutableParameters: textMap(3) });

// Snapshots.
const TIMESTAMP = schema({ seconds: integer(1), nanos: integer(2) });
const SNAPSHOT = schema({
  sizeBytes: integer(1),
  snapshotId: text(2),
  sourceVolumeId: text(3),
  creationTime: message(4, TIMESTAMP),
  readyToUse: flag(5),
  groupSnapshotId: text(6),
});
export const CREATE_SNAPSHOT = schema({
  sourceVolumeId: text(1),
  name: text(2),
  secrets: textMap(3),
  parameters: textMap(4),
});
export const CREATED_SNAPSHOT = schema({ snapshot: message(1, SNAPSHOT) });
export const DELETE_SNAPSHOT = schema({ snapshotId: text(1), secrets: textMap(2) });
export const LIST_SNAPSHOTS = schema({
  maxEntries: integer(1),
  startingToken: text(2),
  sourceVolumeId: text(3),
  snapshotId: text(4),
  secrets: textMap(5),
});
export const SNAPSHOTS = schema({
  entries: repeated(message(1, schema({ snapshot: message(1, SNAPSHOT) }))),
  nextToken: text(2),
});

const RPC_CAPABILITIES = schema({
  capabilities: repeated(message(1, schema({ rpc: message(1, schema({ type: integer(1) })) }))),
});
export const CONTROLLER_CAPABILITIES = RPC_CAPABILITIES;
export const CONTROLLER_RPCS = {
  CREATE_DELETE_VOLUME: 1,
  PUBLISH_UNPUBLISH_VOLUME: 2,
  LIST_VOLUMES: 3,
  GET_CAPACITY: 4,
  CREATE_DELETE_SNAPSHOT: 5,
  LIST_SNAPSHOTS: 6,
  CLONE_VOLUME: 7,
  PUBLISH_READONLY: 8,
  EXPAND_VOLUME: 9,
  SINGLE_NODE_MULTI_WRITER: 13,
  MODIFY_VOLUME: 14,
} as const;

// On the node.
export const NODE_STAGE = schema({
  volumeId: text(1),
  publishContext: textMap(2),
  stagingTargetPath: text(3),
  volumeCapability: message(4, VOLUME_CAPABILITY),
  secrets: textMap(5),
  volumeContext: textMap(6),
});
export const NODE_UNSTAGE = schema({ volumeId: text(1), stagingTargetPath: text(2) });
export const NODE_PUBLISH = schema({
  volumeId: text(1),
  publishContext: textMap(2),
  stagingTargetPath: text(3),
  targetPath: text(4),
  volumeCapability: message(5, VOLUME_CAPABILITY),
  readonly: flag(6),
  secrets: textMap(7),
  volumeContext: textMap(8),
});
export const NODE_UNPUBLISH = schema({ volumeId: text(1), targetPath: text(2) });
export const NODE_STATS = schema({ volumeId: text(1), volumePath: text(2), stagingTargetPath: text(3) });
export const USAGE_UNITS = { BYTES: 1, INODES: 2 } as const;
export const NODE_USAGE = schema({
  usage: repeated(message(1, schema({ available: integer(1), total: integer(2), used: integer(3), unit: integer(4) }))),
  volumeCondition: message(2, schema({ abnormal: flag(1), message: text(2) })),
});
export const NODE_EXPAND = schema({
  volumeId: text(1),
  volumePath: text(2),
  capacityRange: message(3, CAPACITY_RANGE),
  stagingTargetPath: text(4),
  volumeCapability: message(5, VOLUME_CAPABILITY),
  secrets: textMap(6),
});
export const NODE_EXPANDED = schema({ capacityBytes: integer(1) });
export const NODE_CAPABILITIES = RPC_CAPABILITIES;
export const NODE_RPCS = {
  STAGE_UNSTAGE_VOLUME: 1,
  GET_VOLUME_STATS: 2,
  EXPAND_VOLUME: 3,
  VOLUME_CONDITION: 4,
  SINGLE_NODE_MULTI_WRITER: 5,
  VOLUME_MOUNT_GROUP: 6,
} as const;
export const NODE_INFO = schema({
  nodeId: text(1),
  maxVolumesPerNode: integer(2),
  accessibleTopology: message(3, TOPOLOGY),
});

// Registration with the kubelet.
export const REGISTRATION_INFO = schema({
  type: text(1),
  name: text(2),
  endpoint: text(3),
  supportedVersions: repeated(text(4)),
});
export const REGISTRATION_STATUS = schema({ pluginRegistered: flag(1), error: text(2) });
