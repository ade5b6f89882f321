/**
 * NodeRestriction: a kubelet writes its own Node, its own lease, the status of pods on its node, mirror pods, and asks for
 * tokens and certificates of those pods; nothing else. TaintNodesByCondition: a new node starts tainted not-ready.
 */

import { isDeepStrictEqual } from 'node:util';
import type { TokenRequest } from '../../api/authentication/v1.gen.ts';
import { parseCertificateRequest } from '../../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest } from '../../api/certificates/v1.gen.ts';
import type { PodCertificateRequest } from '../../api/certificates/v1beta1.gen.ts';
import { describeDifference } from '../../api/core/pod-update-validation.ts';
import type { Node, PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { messageOf, notFound } from '../../base/errors.ts';
import { NODES, PODS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import { nodeNameOf } from '../authz/node-authorizer.ts';
import { isMirrorPod, podReferences } from '../authz/pod-references.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, isAbout, refusal } from './context.ts';
import { volumesName } from './token-audiences.ts';

/** Labels in Kubernetes' own namespaces that a kubelet may give its node. */
const KUBELET_LABELS: readonly string[] = [
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'kubernetes.io/arch',
  'kubernetes.io/instance-type',
  'node.kubernetes.io/instance-type',
  'topology.kubernetes.io/zone',
  'topology.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone',
  'failure-domain.beta.kubernetes.io/region',
  'beta.kubernetes.io/os',
  'beta.kubernetes.io/arch',
  'beta.kubernetes.io/instance-type',
];
const KUBELET_SERVING = 'kubernetes.io/kubelet-serving';
const KUBELET_CLIENT = 'kubernetes.io/kube-apiserver-client-kubelet';
const NOT_READY = 'node.kubernetes.io/not-ready';

export function taintNodesByCondition(): AdmissionPlugin {
  return {
    name: 'TaintNodesByCondition',
    mutate(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, '', 'nodes')) return;
      const node = request.object as Node;
      node.spec ??= {};
      if (!node.spec.taints?.some(taint => taint.key === NOT_READY && taint.effect === 'NoSchedule'))
        node.spec.taints = [...(node.spec.taints ?? []), { key: NOT_READY, effect: 'NoSchedule' }];
    },
  };
}

export function nodeRestriction({ reader, authorizer }: AdmissionContext): AdmissionPlugin {
  const readPod = (request: AdmissionRequest): Pod => {
    const { namespace, name } = request.attributes;
    const pod = reader().get(PODS, namespace, name) as Pod | undefined;
    if (!pod) throw notFound(PODS, name);
    return pod;
  };

  return {
    name: 'NodeRestriction',
    mutate(request) {
      const node = nodeNameOf(request.attributes.user);
      if (node === undefined) return;
      const { group, resource, subresource } = request.attributes;
      switch (`${group}/${resource}${subresource ? `/${subresource}` : ''}`) {
        case '/pods':
          return checkPod(request, node);
        case '/pods/status':
          return checkPodStatus(request, node);
        case '/pods/eviction':
          if (readPod(request).spec?.nodeName !== node)
            throw refusal(request, `node ${node} can only evict pods with spec.nodeName set to itself`);
          return;
        case '/nodes':
        case '/nodes/status':
          return checkNode(request, node);
        case '/serviceaccounts/token':
          return checkToken(request, node);
        case '/persistentvolumeclaims':
          throw refusal(request, 'may only update PVC status');
        case '/persistentvolumeclaims/status':
          return checkClaimStatus(request, node);
        case 'certificates.k8s.io/certificatesigningrequests':
          return checkCertificateRequest(request, node);
        case 'certificates.k8s.io/podcertificaterequests':
          return checkPodCertificate(request, node);
        case 'coordination.k8s.io/leases':
          if (request.attributes.namespace !== 'kube-node-lease')
            throw refusal(request, 'can only access leases in the "kube-node-lease" system namespace');
          return checkOwn(request, node, 'node lease');
        case 'storage.k8s.io/csinodes':
          return checkOwn(request, node, 'CSINode');
        case 'resource.k8s.io/resourceslices': {
          const slice = (request.object ?? request.oldObject) as { spec?: { nodeName?: string } } | undefined;
          if (slice && slice.spec?.nodeName !== node)
            throw refusal(request, 'can only create ResourceSlice with the same NodeName as the requesting node');
          return;
        }
      }
    },
  };

  function checkPod(request: AdmissionRequest, node: string): void {
    if (request.operation === 'CONNECT') return;
    if (request.operation === 'DELETE') {
      if (request.attributes.name === '') return;
      if (readPod(request).spec?.nodeName !== node)
        throw refusal(request, `node ${JSON.stringify(node)} can only delete pods with spec.nodeName set to itself`);
      return;
    }
    if (request.operation !== 'CREATE')
      throw refusal(
        request,
        `unexpected operation ${JSON.stringify(request.operation)}, node ${JSON.stringify(node)} can only create and delete mirror pods`,
      );
    const pod = request.object as Pod;
    const quoted = JSON.stringify(node);
    if (!isMirrorPod(pod))
      throw refusal(
        request,
        `pod does not have "kubernetes.io/config.mirror" annotation, node ${quoted} can only create mirror pods`,
      );
    if (pod.spec?.nodeName !== node)
      throw refusal(request, `node ${quoted} can only create pods with spec.nodeName set to itself`);
    const owners = pod.metadata.ownerReferences ?? [];
    if (owners.length > 1)
      throw refusal(request, `node ${quoted} can only create pods with a single owner reference set to itself`);
    if (owners[0]?.kind !== 'Node' || owners[0].apiVersion !== 'v1' || owners[0].name !== node)
      throw refusal(request, `node ${quoted} can only create pods with an owner reference set to itself`);
    if (pod.spec.serviceAccountName)
      throw refusal(request, `node ${quoted} can not create pods that reference a service account`);
    // Also those of templates: what is made from them would be the node's to use.
    if (pod.spec.resourceClaims?.length)
      throw refusal(request, `node ${quoted} can not create pods that reference resourceclaims`);
    const kinds = new Set(
      [...podReferences({ ...pod, metadata: { ...pod.metadata, annotations: {} } })].map(
        reference => reference.split('/')[0],
      ),
    );
    for (const [kind, plural] of [
      ['secret', 'secrets'],
      ['configmap', 'configmaps'],
      ['claim', 'persistentvolumeclaims'],
    ] as const)
      if (kinds.has(kind)) throw refusal(request, `node ${quoted} can not create pods that reference ${plural}`);
  }

  function checkPodStatus(request: AdmissionRequest, node: string): void {
    if (request.operation !== 'UPDATE')
      throw refusal(request, `unexpected operation ${JSON.stringify(request.operation)}`);
    const [pod, old] = [request.object as Pod, request.oldObject as Pod];
    if (old.spec?.nodeName !== node)
      throw refusal(
        request,
        `node ${JSON.stringify(node)} can only update pod status for pods with spec.nodeName set to itself`,
      );
    if (JSON.stringify(pod.metadata.labels ?? {}) !== JSON.stringify(old.metadata.labels ?? {}))
      throw refusal(request, `node ${JSON.stringify(node)} cannot update labels through pod status`);
    // They name what the node may then read.
    const differ = (now: unknown, before: unknown) => JSON.stringify(now ?? null) !== JSON.stringify(before ?? null);
    if (differ(pod.status?.resourceClaimStatuses, old.status?.resourceClaimStatuses))
      throw refusal(request, `node ${JSON.stringify(node)} cannot update resource claim statuses`);
    if (differ(pod.status?.extendedResourceClaimStatus, old.status?.extendedResourceClaimStatus))
      throw refusal(request, `node ${JSON.stringify(node)} cannot update extended resource claim status`);
  }

  function checkNode(request: AdmissionRequest, name: string): void {
    const requested = request.object?.metadata.name || request.attributes.name;
    if (requested !== name)
      throw refusal(request, `node ${JSON.stringify(name)} is not allowed to modify node ${JSON.stringify(requested)}`);
    const node = request.object as Node | undefined;
    if (!node) return;
    if (request.operation === 'CREATE') {
      const labels = Object.keys(node.metadata.labels ?? {}).filter(isForbiddenLabel);
      if (labels.length)
        throw refusal(
          request,
          `node ${JSON.stringify(name)} is not allowed to set the following labels: ${labels.sort().join(', ')}`,
        );
      return;
    }
    const old = request.oldObject as Node;
    const differs = (a: unknown, b: unknown) => JSON.stringify(a ?? []) !== JSON.stringify(b ?? []);
    if (differs(node.spec?.taints, old.spec?.taints))
      throw refusal(request, `node ${JSON.stringify(name)} is not allowed to modify taints`);
    if (differs(node.metadata.ownerReferences, old.metadata.ownerReferences))
      throw refusal(request, `node ${JSON.stringify(name)} is not allowed to modify ownerReferences`);
    const [labels, before] = [node.metadata.labels ?? {}, old.metadata.labels ?? {}];
    const changed = [...new Set([...Object.keys(labels), ...Object.keys(before)])].filter(
      key => labels[key] !== before[key] && isForbiddenLabel(key),
    );
    if (changed.length) throw refusal(request, `is not allowed to modify labels: ${changed.sort().join(', ')}`);
  }

  // How much room a volume has is what a kubelet finds out when it has grown a file system.
  function checkClaimStatus(request: AdmissionRequest, node: string): void {
    if (request.operation !== 'UPDATE')
      throw refusal(request, `unexpected operation ${JSON.stringify(request.operation)}`);
    const rest = ({ metadata, status, ...others }: PersistentVolumeClaim) => {
      const { resourceVersion: _, managedFields: __, ...kept } = metadata;
      const { capacity, conditions, allocatedResources, allocatedResourceStatuses, ...told } = status ?? {};
      return { ...others, metadata: kept, status: told };
    };
    const [before, after] = [rest(request.oldObject as PersistentVolumeClaim), rest(request.object as never)];
    if (!isDeepStrictEqual(before, after))
      throw refusal(
        request,
        `node ${JSON.stringify(node)} is not allowed to update fields other than status.quantity and status.conditions: ${describeDifference(before, after)}`,
      );
  }

  // By its signer a certificate of another node would be as good as its own.
  function checkCertificateRequest(request: AdmissionRequest, node: string): void {
    if (request.operation !== 'CREATE') return;
    const { signerName, request: pem } = (request.object as CertificateSigningRequest).spec;
    if (signerName !== KUBELET_SERVING && signerName !== KUBELET_CLIENT) return;
    let commonName: string;
    try {
      ({ commonName } = parseCertificateRequest(pem));
    } catch (error) {
      throw refusal(request, `unable to parse csr: ${messageOf(error)}`);
    }
    if (commonName !== `system:node:${node}`)
      throw refusal(request, `can only create a node CSR with CN=system:node:${node}`);
  }

  async function checkToken(request: AdmissionRequest, node: string): Promise<void> {
    const reference = (request.object as TokenRequest | undefined)?.spec?.boundObjectRef;
    if (reference?.apiVersion !== 'v1' || reference.kind !== 'Pod' || !reference.name)
      throw refusal(request, 'node requested token not bound to a pod');
    if (!reference.uid) throw refusal(request, 'node requested token with a pod binding without a uid');
    const pod = reader().get(PODS, request.attributes.namespace, reference.name) as Pod | undefined;
    if (!pod) throw notFound(PODS, reference.name);
    if (pod.metadata.uid !== reference.uid)
      throw refusal(
        request,
        `the UID in the bound object reference (${reference.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
      );
    if (pod.spec?.nodeName !== node)
      throw refusal(request, 'node requested token bound to a pod scheduled on a different node');
    const { audiences = [] } = (request.object as TokenRequest).spec;
    if (audiences.length > 1) throw refusal(request, 'node may only request 0 or 1 audiences');
    const [audience = ''] = audiences;
    if (volumesName(audience, pod, reader())) return;
    const { attributes } = request;
    const asked = {
      verb: 'request-serviceaccounts-token-audience',
      resource: audience,
      subresource: '',
      version: 'v1',
    };
    const { allowed } = await authorizer.authorize({ ...attributes, ...asked });
    if (!allowed)
      throw refusal(
        request,
        `audience ${JSON.stringify(audience)} not found in pod spec volume, ${attributes.user.name} is not authorized to request tokens for this audience`,
      );
  }

  /** Only for a pod that runs there, with everything that is said of it true. */
  function checkPodCertificate(request: AdmissionRequest, node: string): void {
    if (request.operation !== 'CREATE')
      throw refusal(request, `unexpected operation ${JSON.stringify(request.operation)}`);
    const { spec } = request.object as PodCertificateRequest;
    const { namespace } = request.attributes;
    const quoted = (value: string | undefined) => JSON.stringify(value ?? '');
    if (spec.nodeName !== node)
      throw refusal(
        request,
        `PodCertificateRequest.Spec.NodeName=${quoted(spec.nodeName)}, which is not the requesting node ${quoted(node)}`,
      );
    const pod = reader().get(PODS, namespace, spec.podName) as Pod | undefined;
    if (!pod) throw notFound(PODS, spec.podName);
    const of = quoted(`${namespace}/${spec.podName}`);
    if (pod.spec?.nodeName !== node)
      throw refusal(request, `pod ${of} is not running on node ${quoted(node)} named in the PodCertificateRequest`);
    if (isMirrorPod(pod)) throw refusal(request, `pod ${of} is a mirror pod`);
    if (spec.serviceAccountName !== pod.spec.serviceAccountName)
      throw refusal(
        request,
        `PodCertificateRequest for pod ${of} contains serviceAccountName (${quoted(spec.serviceAccountName)}) that differs from running pod (${quoted(pod.spec.serviceAccountName)})`,
      );
    const account = reader().get(SERVICE_ACCOUNTS, namespace, spec.serviceAccountName);
    const uids = [
      ['node', spec.nodeUID, reader().get(NODES, '', node)],
      ['pod', spec.podUID, pod],
      ['service account', spec.serviceAccountUID, account],
    ] as const;
    for (const [what, uid, object] of uids)
      if (uid !== object?.metadata.uid)
        throw refusal(
          request,
          `PodCertificateRequest for pod ${of} contains ${what} UID (${quoted(uid)}) which differs from that in record (${quoted(object?.metadata.uid)})`,
        );
  }

  function checkOwn(request: AdmissionRequest, node: string, what: string): void {
    const name = request.object?.metadata.name || request.attributes.name;
    if (name !== node) throw refusal(request, `can only access ${what} with the same name as the requesting node`);
  }
}

function isForbiddenLabel(key: string): boolean {
  const domain = key.includes('/') ? key.slice(0, key.indexOf('/')) : '';
  const within = (parent: string) => domain === parent || domain.endsWith(`.${parent}`);
  if (within('node-restriction.kubernetes.io')) return true;
  if (!within('kubernetes.io') && !within('k8s.io')) return false;
  return !KUBELET_LABELS.includes(key) && !within('kubelet.kubernetes.io') && !within('node.kubernetes.io');
}
