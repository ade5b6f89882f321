/** The calls of CSI's three services and of plugin registration: path, request, reply. A driver serves some, a client calls them. */

import * as m from './messages.ts';
import type { Message } from './protobuf.ts';

export interface Call<Q extends object, R extends object> {
  readonly path: string;
  readonly request: { readonly fields: Q };
  readonly reply: { readonly fields: R };
}
export type Request<C> = C extends Call<infer Q, object> ? Message<Q> : never;
export type Reply<C> = C extends Call<object, infer R> ? Message<R> : never;

export function call<Q extends object, R extends object>(
  path: string,
  request: { readonly fields: Q },
  reply: { readonly fields: R },
): Call<Q, R> {
  return { path, request, reply };
}

export const CALLS = {
  getPluginInfo: call('/csi.v1.Identity/GetPluginInfo', m.EMPTY, m.PLUGIN_INFO),
  getPluginCapabilities: call('/csi.v1.Identity/GetPluginCapabilities', m.EMPTY, m.PLUGIN_CAPABILITIES),
  probe: call('/csi.v1.Identity/Probe', m.EMPTY, m.PROBED),
  createVolume: call('/csi.v1.Controller/CreateVolume', m.CREATE_VOLUME, m.CREATED_VOLUME),
  deleteVolume: call('/csi.v1.Controller/DeleteVolume', m.DELETE_VOLUME, m.EMPTY),
  controllerPublishVolume: call(
    '/csi.v1.Controller/ControllerPublishVolume',
    m.CONTROLLER_PUBLISH,
    m.CONTROLLER_PUBLISHED,
  ),
  controllerUnpublishVolume: call('/csi.v1.Controller/ControllerUnpublishVolume', m.CONTROLLER_UNPUBLISH, m.EMPTY),
  validateVolumeCapabilities: call(
    '/csi.v1.Controller/ValidateVolumeCapabilities',
    m.VALIDATE_CAPABILITIES,
    m.VALIDATED_CAPABILITIES,
  ),
  getCapacity: call('/csi.v1.Controller/GetCapacity', m.GET_CAPACITY, m.CAPACITY),
  controllerGetCapabilities: call('/csi.v1.Controller/ControllerGetCapabilities', m.EMPTY, m.CONTROLLER_CAPABILITIES),
  createSnapshot: call('/csi.v1.Controller/CreateSnapshot', m.CREATE_SNAPSHOT, m.CREATED_SNAPSHOT),
  deleteSnapshot: call('/csi.v1.Controller/DeleteSnapshot', m.DELETE_SNAPSHOT, m.EMPTY),
  listSnapshots: call('/csi.v1.Controller/ListSnapshots', m.LIST_SNAPSHOTS, m.SNAPSHOTS),
  controllerExpandVolume: call('/csi.v1.Controller/ControllerExpandVolume', m.CONTROLLER_EXPAND, m.CONTROLLER_EXPANDED),
  controllerModifyVolume: call('/csi.v1.Controller/ControllerModifyVolume', m.CONTROLLER_MODIFY, m.EMPTY),
  nodeStageVolume: call('/csi.v1.Node/NodeStageVolume', m.NODE_STAGE, m.EMPTY),
  nodeUnstageVolume: call('/csi.v1.Node/NodeUnstageVolume', m.NODE_UNSTAGE, m.EMPTY),
  nodePublishVolume: call('/csi.v1.Node/NodePublishVolume', m.NODE_PUBLISH, m.EMPTY),
  nodeUnpublishVolume: call('/csi.v1.Node/NodeUnpublishVolume', m.NODE_UNPUBLISH, m.EMPTY),
  nodeGetVolumeStats: call('/csi.v1.Node/NodeGetVolumeStats', m.NODE_STATS, m.NODE_USAGE),
  nodeExpandVolume: call('/csi.v1.Node/NodeExpandVolume', m.NODE_EXPAND, m.NODE_EXPANDED),
  nodeGetCapabilities: call('/csi.v1.Node/NodeGetCapabilities', m.EMPTY, m.NODE_CAPABILITIES),
  nodeGetInfo: call('/csi.v1.Node/NodeGetInfo', m.EMPTY, m.NODE_INFO),
  registrationInfo: call('/pluginregistration.Registration/GetInfo', m.EMPTY, m.REGISTRATION_INFO),
  registrationStatus: call('/pluginregistration.Registration/NotifyRegistrationStatus', m.REGISTRATION_STATUS, m.EMPTY),
} as const;
export type CallName = keyof typeof CALLS;

/** Number of entries that a list of capabilities names as `{ rpc: { type } }`. */
export function rpcTypes(reply: {
  readonly capabilities: readonly { readonly rpc?: { readonly type?: number } | undefined }[];
}): ReadonlySet<number> {
  return new Set(reply.capabilities.map(({ rpc }) => rpc?.type ?? 0));
}
