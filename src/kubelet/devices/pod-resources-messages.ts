/** The pod resources API, v1 (k8s.io/kubelet, podresources): its messages with their field numbers, and its calls. Facts only. */

import { call } from '../../csi/calls.ts';
import { EMPTY } from '../../csi/messages.ts';
import { integer, message, repeated, schema, text } from '../../csi/protobuf.ts';

const DEVICES = schema({ resourceName: text(1), deviceIds: repeated(text(2)) });
const CLAIMED = schema({
  cdiDevices: repeated(message(1, schema({ name: text(1) }))),
  driverName: text(2),
  poolName: text(3),
  deviceName: text(4),
});
const DYNAMIC = schema({ claimName: text(2), claimNamespace: text(3), claimResources: repeated(message(4, CLAIMED)) });
const MEMORY = schema({
  memoryType: text(1),
  size: integer(2),
  topology: message(3, schema({ nodes: repeated(message(1, schema({ id: integer(1) }))) })),
});
const CONTAINER = schema({
  name: text(1),
  devices: repeated(message(2, DEVICES)),
  cpuIds: repeated(integer(3)),
  memory: repeated(message(4, MEMORY)),
  dynamicResources: repeated(message(5, DYNAMIC)),
});
const POD = schema({ name: text(1), namespace: text(2), containers: repeated(message(3, CONTAINER)) });

export const POD_RESOURCES_CALLS = {
  list: call('/v1.PodResourcesLister/List', EMPTY, schema({ podResources: repeated(message(1, POD)) })),
  getAllocatableResources: call(
    '/v1.PodResourcesLister/GetAllocatableResources',
    EMPTY,
    schema({
      devices: repeated(message(1, DEVICES)),
      cpuIds: repeated(integer(2)),
      memory: repeated(message(3, MEMORY)),
    }),
  ),
  get: call(
    '/v1.PodResourcesLister/Get',
    schema({ podName: text(1), podNamespace: text(2) }),
    schema({ podResources: message(1, POD) }),
  ),
} as const;
