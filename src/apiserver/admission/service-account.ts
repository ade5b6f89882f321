/**
 * ServiceAccount: every pod runs as a service account of its namespace (`default` unless it names one), gets that
 * account's image pull secrets, and a projected volume with a bound token, the cluster's CA and its namespace.
 */

import type { Pod, ServiceAccount, Volume } from '../../api/core/v1.gen.ts';
import { messageOf, notFound } from '../../base/errors.ts';
import { randomSuffix } from '../../base/random.ts';
import { SERVICE_ACCOUNTS } from '../../client/resources.ts';
import { isMirrorPod, podReferences } from '../authz/pod-references.ts';
import type { AdmissionPlugin } from '../request.ts';
import { type AdmissionContext, isPodCreate, refusal } from './context.ts';

const MOUNT_PATH = '/var/run/secrets/kubernetes.io/serviceaccount';
const VOLUME_PREFIX = 'kube-api-access-';
/** Upstream's WarnOnlyBoundTokenExpirationPeriod: the odd seven seconds mark tokens whose life may be extended. */
export const WARN_ONLY_TOKEN_SECONDS = 3607;
/** The default account of a new namespace is made by a controller: that long a pod waits for it (upstream: 10 × 100 ms). */
const DEFAULT_ACCOUNT_WAIT_MS = 1000;

export function serviceAccount(context: AdmissionContext): AdmissionPlugin {
  const { reader, clock } = context;
  const read = (namespace: string, name: string) =>
    reader().get(SERVICE_ACCOUNTS, namespace, name) as ServiceAccount | undefined;

  async function awaited(namespace: string, name: string): Promise<ServiceAccount> {
    if (name !== 'default') throw notFound({ group: '', resource: 'serviceaccount' }, name);
    return new Promise((resolve, reject) => {
      const finish = () => {
        end();
        timer.cancel();
        const account = read(namespace, name);
        if (account) resolve(account);
        else reject(notFound({ group: '', resource: 'serviceaccount' }, name));
      };
      const end = reader().onChange(SERVICE_ACCOUNTS, object => {
        if (object?.metadata.namespace === namespace && object.metadata.name === name) finish();
      });
      const timer = clock.after(DEFAULT_ACCOUNT_WAIT_MS, finish, { background: true });
    });
  }

  return {
    name: 'ServiceAccount',
    mutate(request) {
      if (!isPodCreate(request)) return;
      const pod = request.object as Pod;
      const spec = pod.spec;
      if (!spec) return;
      if (isMirrorPod(pod)) {
        if (spec.serviceAccountName) throw refusal(request, 'a mirror pod may not reference service accounts');
        if (spec.volumes?.some(volume => volume.projected?.sources?.some(source => source.serviceAccountToken)))
          throw refusal(request, 'a mirror pod may not use ServiceAccountToken volume projections');
        const references = [...podReferences({ ...pod, metadata: { ...pod.metadata, annotations: {} } })];
        if (references.some(reference => reference.startsWith('secret/')))
          throw refusal(request, 'a mirror pod may not reference secrets');
        return;
      }
      spec.serviceAccountName ||= 'default';
      spec.serviceAccount = spec.serviceAccountName;
      const namespace = request.attributes.namespace;
      const account = read(namespace, spec.serviceAccountName);
      if (account) return apply(pod, account);
      return awaited(namespace, spec.serviceAccountName).then(
        found => apply(pod, found),
        error => {
          throw refusal(
            request,
            `error looking up service account ${namespace}/${spec.serviceAccountName}: ${messageOf(error)}`,
          );
        },
      );
    },
  };

  function apply(pod: Pod, account: ServiceAccount): void {
    const spec = pod.spec!;
    if (!spec.imagePullSecrets?.length && account.imagePullSecrets?.length)
      spec.imagePullSecrets = account.imagePullSecrets.map(secret => ({ ...secret }));
    if (!(spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true)) return;
    const existing = spec.volumes?.find(volume => volume.name.startsWith(VOLUME_PREFIX))?.name;
    const name = existing ?? VOLUME_PREFIX + randomSuffix(context.random);
    let mounted = false;
    for (const container of [...(spec.initContainers ?? []), ...(spec.containers ?? [])]) {
      if (container.volumeMounts?.some(mount => mount.mountPath === MOUNT_PATH)) continue;
      container.volumeMounts = [...(container.volumeMounts ?? []), { name, readOnly: true, mountPath: MOUNT_PATH }];
      mounted = true;
    }
    if (mounted && existing === undefined) spec.volumes = [...(spec.volumes ?? []), tokenVolume(name)];
  }
}

function tokenVolume(name: string): Volume {
  return {
    name,
    projected: {
      sources: [
        { serviceAccountToken: { expirationSeconds: WARN_ONLY_TOKEN_SECONDS, path: 'token' } },
        { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
        {
          downwardAPI: {
            items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
          },
        },
      ],
      defaultMode: 0o644,
    },
  };
}
