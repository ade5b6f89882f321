/**
 * The API between kubelet and drivers of dynamic resource allocation (k8s.io/kubelet, dra/v1 and dra-health/v1alpha1): its messages with their field numbers,
 * and its calls in both versions, which look alike on the wire. Facts only.
 */

import { call } from '../../csi/calls.ts';
import { integer, message, repeated, schema, text } from '../../csi/protobuf.ts';

const CLAIM = schema({ namespace: text(1), uid: text(2), name: text(3) });
const CLAIMS = schema({ claims: repeated(message(1, CLAIM)) });
const DEVICE = schema({
  requestNames: repeated(text(1)),
  poolName: text(2),
  deviceName: text(3),
  cdiDeviceIds: repeated(text(4)),
});
const PREPARED = schema({ devices: repeated(message(1, DEVICE)), error: text(2) });
const UNPREPARED = schema({ error: text(1) });
// A map from uids, as it is on the wire.
const ALL_PREPARED = schema({ claims: repeated(message(1, schema({ key: text(1), value: message(2, PREPARED) }))) });
const ALL_UNPREPARED = schema({
  claims: repeated(message(1, schema({ key: text(1), value: message(2, UNPREPARED) }))),
});

const HEALTH = schema({
  device: message(1, schema({ poolName: text(1), deviceName: text(2) })),
  health: integer(2),
  lastUpdatedTime: integer(3),
  timeoutSeconds: integer(4),
  message: text(5),
});
const HEALTH_OF_ALL = schema({ devices: repeated(message(1, HEALTH)) });

function calls(version: string) {
  const service = `/k8s.io.kubelet.pkg.apis.dra.${version}.DRAPlugin`;
  return {
    prepare: call(`${service}/NodePrepareResources`, CLAIMS, ALL_PREPARED),
    unprepare: call(`${service}/NodeUnprepareResources`, CLAIMS, ALL_UNPREPARED),
    // A service of its own, which a driver may have or not.
    watchHealth: call('/v1alpha1.DRAResourceHealth/NodeWatchResources', schema({}), HEALTH_OF_ALL),
  } as const;
}

/** By what a driver names as supported, the preferred one first. */
export const DRIVER_CALLS = { 'v1.DRAPlugin': calls('v1'), 'v1beta1.DRAPlugin': calls('v1beta1') } as const;
export type DriverVersion = keyof typeof DRIVER_CALLS;
export type DriverCalls = ReturnType<typeof calls>;
