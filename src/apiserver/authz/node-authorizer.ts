/**
 * What a kubelet (`system:node:NAME` in `system:nodes`) may do: the rules of the role `system:node`, and of secrets,
 * config maps, claims, volumes, leases, nodes and pods only those that belong to pods on its node. It has no opinion about
 * anybody else. A pod's references count from the moment it is bound to the node.
 */

import type { PodCertificateRequest } from '../../api/certificates/v1beta1.gen.ts';
import type { PersistentVolume, PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import type { PolicyRule } from '../../api/rbac/v1.gen.ts';
import {
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  POD_CERTIFICATE_REQUESTS,
  PODS,
} from '../../client/resources.ts';
import type { Authorizer, Decision, Reader, RequestAttributes, UserInfo } from '../request.ts';
import { podReferences } from './pod-references.ts';
import { ruleAllows } from './rules.ts';

const VOLUME_ATTACHMENTS = { group: 'storage.k8s.io', version: 'v1', resource: 'volumeattachments' };
const ALLOWED: Decision = { allowed: true, reason: '' };
const denied = (reason: string): Decision => ({ allowed: false, reason });

/** Name of the node a user is; undefined for everybody else. */
export function nodeNameOf(user: UserInfo): string | undefined {
  const prefix = 'system:node:';
  return user.name.startsWith(prefix) && user.name.length > prefix.length && user.groups.includes('system:nodes')
    ? user.name.slice(prefix.length)
    : undefined;
}

export class NodeAuthorizer implements Authorizer {
  readonly #reader: () => Reader;
  readonly #rules: () => readonly PolicyRule[];
  /** Node name → its pods by `namespace/name`. */
  #podsByNode: Map<string, Map<string, Pod>> | undefined;

  /** `rules`: those of `system:node`. */
  constructor(reader: () => Reader, rules: () => readonly PolicyRule[]) {
    this.#reader = reader;
    this.#rules = rules;
  }

  authorize(attributes: RequestAttributes): Decision {
    const node = nodeNameOf(attributes.user);
    if (node === undefined) return denied('');
    const special = attributes.isResource ? this.#authorizeOwn(node, attributes) : undefined;
    if (special) return special;
    return this.#rules().some(rule => ruleAllows(rule, attributes)) ? ALLOWED : denied('');
  }

  // undefined: the role's rules decide.
  #authorizeOwn(node: string, attributes: RequestAttributes): Decision | undefined {
    const { group, resource, subresource, verb, name, namespace } = attributes;
    const related = `no relationship found between node '${node}' and this object`;
    const ifRelated = (kind: string) => (this.#refers(node, kind, namespace, name) ? ALLOWED : denied(related));
    switch (`${group}/${resource}`) {
      case '/secrets':
      case '/configmaps':
        if (subresource || !['get', 'list', 'watch'].includes(verb))
          return denied('can only get, list and watch individual resources of this type');
        if (!name || !namespace) return denied('No Object name found');
        return resource === 'secrets'
          ? this.#mayReadSecret(node, namespace, name)
            ? ALLOWED
            : denied(related)
          : ifRelated('configmap');
      case '/persistentvolumeclaims':
        if (subresource === 'status')
          return verb === 'update' || verb === 'patch' || verb === 'get'
            ? ifRelated('claim')
            : denied('can only update or patch status');
        return subresource || verb !== 'get'
          ? denied('can only get individual resources of this type')
          : ifRelated('claim');
      case '/persistentvolumes':
        if (subresource || verb !== 'get') return denied('can only get individual resources of this type');
        return this.#usesVolume(node, name) ? ALLOWED : denied(related);
      case 'resource.k8s.io/resourceclaims':
        return subresource || verb !== 'get'
          ? denied('can only get individual resources of this type')
          : ifRelated('resourceclaim');
      case 'storage.k8s.io/volumeattachments': {
        if (subresource || verb !== 'get') return denied('can only get individual resources of this type');
        const attachment = this.#reader().get(VOLUME_ATTACHMENTS, '', name) as
          | { spec?: { nodeName?: string } }
          | undefined;
        return attachment?.spec?.nodeName === node ? ALLOWED : denied(related);
      }
      case '/serviceaccounts':
        if (subresource === 'token')
          return verb === 'create'
            ? ifRelated('serviceaccount')
            : denied('can only create tokens for individual service accounts');
        return subresource || verb !== 'get'
          ? denied('can only get individual resources of this type')
          : ifRelated('serviceaccount');
      case 'coordination.k8s.io/leases':
        if (namespace !== 'kube-node-lease')
          return denied('can only access leases in the "kube-node-lease" system namespace');
        return this.#own(attributes, node, ['get', 'create', 'update', 'patch', 'delete'], 'node lease');
      case 'storage.k8s.io/csinodes':
        return this.#own(attributes, node, ['get', 'create', 'update', 'patch', 'delete'], 'CSINode');
      case 'resource.k8s.io/resourceslices':
        if (
          subresource ||
          !['get', 'create', 'update', 'patch', 'delete', 'list', 'watch', 'deletecollection'].includes(verb)
        )
          return denied('can only get, create, update, patch, or delete a ResourceSlice');
        // Creates and updates are checked by admission, which sees the object's node name.
        if (['list', 'watch', 'deletecollection'].includes(verb))
          return selects(attributes, 'spec.nodeName', node)
            ? ALLOWED
            : denied('can only list/watch/deletecollection resourceslices with nodeName field selector');
        return ALLOWED;
      case '/nodes':
        if (subresource !== '' || !['get', 'list', 'watch'].includes(verb)) return undefined;
        if (name === node || selects(attributes, 'metadata.name', node)) return ALLOWED;
        return denied(`node '${node}' cannot read '${name}', only its own Node object`);
      case 'certificates.k8s.io/podcertificaterequests':
        if (subresource) return denied('nodes may not access the subresources of PodCertificateRequests');
        // What may be asked for is checked by admission.
        if (verb === 'create') return ALLOWED;
        if (verb === 'get') {
          const asked = this.#reader().get(POD_CERTIFICATE_REQUESTS, namespace, name) as
            | PodCertificateRequest
            | undefined;
          return asked?.spec.nodeName === node ? ALLOWED : denied(related);
        }
        if (verb !== 'list' && verb !== 'watch')
          return denied('nodes can only create, get, list and watch PodCertificateRequests');
        return selects(attributes, 'spec.nodeName', node)
          ? ALLOWED
          : denied('can only list/watch podcertificaterequests with spec.nodeName field selector');
      // Part of the role only where they are served.
      case 'certificates.k8s.io/clustertrustbundles':
        return !subresource && ['get', 'list', 'watch'].includes(verb) ? ALLOWED : undefined;
      case '/pods':
        if (subresource !== '') return undefined;
        if (verb === 'get') return this.#podsOf(node)?.has(`${namespace}/${name}`) ? ALLOWED : denied(related);
        if (verb === 'list' || verb === 'watch') {
          if (selects(attributes, 'spec.nodeName', node) || (name && this.#podsOf(node)?.has(`${namespace}/${name}`)))
            return ALLOWED;
          return denied('can only list/watch pods with spec.nodeName field selector');
        }
        return undefined;
      default:
        return undefined;
    }
  }

  #own({ subresource, verb, name }: RequestAttributes, node: string, verbs: readonly string[], what: string): Decision {
    if (subresource || !verbs.includes(verb)) return denied(`can only get, create, update, patch, or delete a ${what}`);
    // A create carries no name in its URL; admission checks the object.
    return verb === 'create' || name === node
      ? ALLOWED
      : denied(`can only access ${what} with the same name as the requesting node`);
  }

  #mayReadSecret(node: string, namespace: string, name: string): boolean {
    if (this.#refers(node, 'secret', namespace, name)) return true;
    for (const volume of this.#volumesOf(node))
      if (volumeSecrets(volume).some(one => one.name === name && one.namespace === namespace)) return true;
    return false;
  }

  #usesVolume(node: string, name: string): boolean {
    for (const volume of this.#volumesOf(node)) if (volume.metadata.name === name) return true;
    return false;
  }

  *#volumesOf(node: string): Generator<PersistentVolume> {
    const reader = this.#reader();
    for (const pod of this.#podsOf(node)?.values() ?? []) {
      for (const reference of podReferences(pod)) {
        if (!reference.startsWith('claim/')) continue;
        const claim = reader.get(PERSISTENT_VOLUME_CLAIMS, pod.metadata.namespace!, reference.slice('claim/'.length)) as
          | PersistentVolumeClaim
          | undefined;
        const volume = claim?.spec?.volumeName
          ? (reader.get(PERSISTENT_VOLUMES, '', claim.spec.volumeName) as PersistentVolume | undefined)
          : undefined;
        if (volume) yield volume;
      }
    }
  }

  #refers(node: string, kind: string, namespace: string, name: string): boolean {
    const reference = `${kind}/${name}`;
    for (const pod of this.#podsOf(node)?.values() ?? [])
      if (pod.metadata.namespace === namespace && podReferences(pod).has(reference)) return true;
    return false;
  }

  #podsOf(node: string): Map<string, Pod> | undefined {
    if (!this.#podsByNode) {
      const index = (this.#podsByNode = new Map<string, Map<string, Pod>>());
      const change = (object: unknown, old: unknown) => {
        const [pod, before] = [object, old] as [Pod | undefined, Pod | undefined];
        const key = (of: Pod) => `${of.metadata.namespace}/${of.metadata.name}`;
        if (before?.spec?.nodeName && !pod) {
          const pods = index.get(before.spec.nodeName);
          pods?.delete(key(before));
          if (pods?.size === 0) index.delete(before.spec.nodeName);
        }
        if (pod?.spec?.nodeName) {
          let pods = index.get(pod.spec.nodeName);
          if (!pods) index.set(pod.spec.nodeName, (pods = new Map()));
          pods.set(key(pod), pod);
        }
      };
      for (const pod of this.#reader().list(PODS)) change(pod, undefined);
      this.#reader().onChange(PODS, change);
    }
    return this.#podsByNode.get(node);
  }
}

function selects(attributes: RequestAttributes, field: string, value: string): boolean {
  return (attributes.fieldSelector ?? '')
    .split(',')
    .some(term => new RegExp(`^${field.replace('.', '\\.')}==?(.*)$`).exec(term)?.[1] === value);
}

/** What a kubelet needs to mount the volume: without a namespace of its own a Secret is in that of the claim. */
function volumeSecrets({ spec = {} }: PersistentVolume): { readonly name?: string; readonly namespace?: string }[] {
  const { azureFile, csi, claimRef } = spec;
  const references: readonly ({ readonly name?: string; readonly namespace?: string } | undefined)[] = [
    csi?.nodePublishSecretRef,
    csi?.nodeStageSecretRef,
    csi?.nodeExpandSecretRef,
    spec.cephfs?.secretRef,
    spec.cinder?.secretRef,
    spec.flexVolume?.secretRef,
    spec.iscsi?.secretRef,
    spec.rbd?.secretRef,
    spec.scaleIO?.secretRef,
    spec.storageos?.secretRef,
    azureFile && {
      name: azureFile.secretName,
      ...(azureFile.secretNamespace ? { namespace: azureFile.secretNamespace } : {}),
    },
  ];
  return references.flatMap(one => {
    const namespace = one?.namespace || claimRef?.namespace;
    return one?.name && namespace ? [{ name: one.name, namespace }] : [];
  });
}
