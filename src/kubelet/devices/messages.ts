/**
 * The device plugin API, v1beta1 (k8s.io/kubelet, deviceplugin): its messages with their field numbers, and its calls. Facts only.
 */

import { call } from '../../csi/calls.ts';
import { EMPTY } from '../../csi/messages.ts';
import { flag, integer, message, repeated, schema, text, textMap } from '../../csi/protobuf.ts';

export const VERSION = 'v1beta1';
export const HEALTHY = 'Healthy';

const OPTIONS = schema({ preStartRequired: flag(1), getPreferredAllocationAvailable: flag(2) });
const REGISTER = schema({ version: text(1), endpoint: text(2), resourceName: text(3), options: message(4, OPTIONS) });
const NUMA_NODE = schema({ id: integer(1) });
const DEVICE = schema({
  id: text(1),
  health: text(2),
  topology: message(3, schema({ nodes: repeated(message(1, NUMA_NODE)) })),
});
const DEVICES = schema({ devices: repeated(message(1, DEVICE)) });
const PREFERRED = schema({
  containerRequests: repeated(
    message(
      1,
      schema({
        availableDeviceIds: repeated(text(1)),
        mustIncludeDeviceIds: repeated(text(2)),
        allocationSize: integer(3),
      }),
    ),
  ),
});
const PREFERENCE = schema({ containerResponses: repeated(message(1, schema({ deviceIds: repeated(text(1)) }))) });
const ALLOCATE = schema({ containerRequests: repeated(message(1, schema({ deviceIds: repeated(text(1)) }))) });
const ALLOCATION = schema({
  envs: textMap(1),
  mounts: repeated(message(2, schema({ containerPath: text(1), hostPath: text(2), readOnly: flag(3) }))),
  devices: repeated(message(3, schema({ containerPath: text(1), hostPath: text(2), permissions: text(3) }))),
  annotations: textMap(4),
  cdiDevices: repeated(message(5, schema({ name: text(1) }))),
});
const ALLOCATED = schema({ containerResponses: repeated(message(1, ALLOCATION)) });
const PRE_START = schema({ deviceIds: repeated(text(1)) });

/** What the kubelet serves. */
export const REGISTRATION_CALLS = { register: call('/v1beta1.Registration/Register', REGISTER, EMPTY) } as const;

/** What a plugin serves. */
export const PLUGIN_CALLS = {
  getDevicePluginOptions: call('/v1beta1.DevicePlugin/GetDevicePluginOptions', EMPTY, OPTIONS),
  listAndWatch: call('/v1beta1.DevicePlugin/ListAndWatch', EMPTY, DEVICES),
  getPreferredAllocation: call('/v1beta1.DevicePlugin/GetPreferredAllocation', PREFERRED, PREFERENCE),
  allocate: call('/v1beta1.DevicePlugin/Allocate', ALLOCATE, ALLOCATED),
  preStartContainer: call('/v1beta1.DevicePlugin/PreStartContainer', PRE_START, EMPTY),
} as const;
