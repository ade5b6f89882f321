/**
 * glusterfs: a volume of a Gluster cluster, whose servers an Endpoints object of the pod's namespace lists. The client is a
 * process (FUSE) of the node; it outlives the agent and ends with the mount.
 */

import type { Endpoints, GlusterfsPersistentVolumeSource } from '../../api/core/v1.gen.ts';
import { ENDPOINTS } from '../../client/resources.ts';
import { mountRemote, unmountRemote } from './remote-mount.ts';
import type { VolumeContext, VolumePlugin } from './volume.ts';

export const glusterfsVolume: VolumePlugin<GlusterfsPersistentVolumeSource> = {
  source: 'glusterfs',
  folder: 'kubernetes.io~glusterfs',
  isRemote: true,
  async mount(source, target, context) {
    const [server, ...others] = await serversOf(source, context);
    await mountRemote({
      type: 'glusterfs',
      source: `${server}:${source.path.startsWith('/') ? source.path : `/${source.path}`}`,
      target: target.path,
      options: [
        ...(others.length > 0 ? [`backup-volfile-servers=${others.join(':')}`] : []),
        ...(context.use.mountOptions.some(option => option.startsWith('log-level=')) ? [] : ['log-level=ERROR']),
        ...context.use.mountOptions,
      ],
      isReadOnly: (source.readOnly ?? false) || context.use.isReadOnly,
      debianPackage: 'glusterfs-client',
      signal: context.signal,
    });
  },
  async unmount({ path }) {
    unmountRemote(path);
  },
};

/** Those of the Endpoints, the ready ones first. */
async function serversOf(
  { endpoints: name, endpointsNamespace }: GlusterfsPersistentVolumeSource,
  context: VolumeContext,
): Promise<string[]> {
  const claimNamespace = context.use.persistent?.claim?.metadata.namespace;
  const namespace = endpointsNamespace || claimNamespace || context.pod.metadata.namespace!;
  const object = await context.fetch<Endpoints>(ENDPOINTS, { namespace, name });
  if (!object)
    throw new Error(`endpoints "${name}" not found in namespace "${namespace}": it must list the Gluster servers`);
  const subsets = object.subsets ?? [];
  const servers = [
    ...subsets.flatMap(({ addresses = [] }) => addresses),
    ...subsets.flatMap(({ notReadyAddresses = [] }) => notReadyAddresses),
  ].map(({ ip }) => ip);
  if (servers.length === 0) throw new Error(`endpoints "${namespace}/${name}" lists no address of a Gluster server`);
  return [...new Set(servers)];
}
