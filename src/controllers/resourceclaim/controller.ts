/**
 * Resource claims of pods: makes those that come from templates, owned by their pod; takes pods that are over or gone out of
 * `reservedFor`; gives devices back when nobody has a claim reserved. Invariant: a claim loses its devices only when no pod that
 * may run is in its `reservedFor`. It allocates nothing: the scheduler does.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { allClaimsOf, POD_CLAIM_ANNOTATION, RESOURCE_CLAIM_FINALIZER } from '../../api/machinery/resource-claims.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import type { ResourceClaim, ResourceClaimTemplate } from '../../api/resource/v1.gen.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { controllerReference } from '../runtime/ownership.ts';

const RETRY_MS = 10_000;
const POD = 'pod';
const CLAIM = 'claim';

function create(ctx: ReconcileContext): Controller {
  const pods = ctx.informers.get<Pod>(PODS);
  const claims = ctx.informers.get<ResourceClaim>(RESOURCE_CLAIMS);
  const templates = ctx.informers.get<ResourceClaimTemplate>(RESOURCE_CLAIM_TEMPLATES);
  const client = ctx.client.of<ResourceClaim>(RESOURCE_CLAIMS);
  const ownedBy = (pod: Pod, entry: string) =>
    [...claims.values()].find(
      claim =>
        claim.metadata.namespace === pod.metadata.namespace &&
        controllerOf(claim)?.uid === pod.metadata.uid &&
        claim.metadata.annotations?.[POD_CLAIM_ANNOTATION] === entry,
    );

  /** Claims that were asked for but that no watch has shown yet, by pod and entry. */
  const made = new Map<string, string>();

  async function serve(pod: Pod): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    const statuses = [...(pod.status?.resourceClaimStatuses ?? [])];
    let hasChanged = false;
    for (const { name: entry, resourceClaimTemplateName } of pod.spec.resourceClaims ?? []) {
      if (!resourceClaimTemplateName || statuses.some(one => one.name === entry)) continue;
      const known = ownedBy(pod, entry)?.metadata.name ?? made.get(`${uid}/${entry}`);
      const claim = known ?? (await make(pod, entry, resourceClaimTemplateName));
      made.set(`${uid}/${entry}`, claim);
      statuses.push({ name: entry, resourceClaimName: claim });
      hasChanged = true;
    }
    if (!hasChanged) return;
    await ctx.client
      .of<Pod>(PODS)
      .patchStatus(
        namespace,
        name,
        { metadata: { uid }, status: { resourceClaimStatuses: statuses } },
        'application/strategic-merge-patch+json',
      );
  }

  async function make(pod: Pod, entry: string, templateName: string): Promise<string> {
    const { namespace = '', name } = pod.metadata;
    const template = templates.get(`${namespace}/${templateName}`);
    if (!template) throw new Error(`resourceclaimtemplate.resource.k8s.io ${JSON.stringify(templateName)} not found`);
    const { metadata, spec } = template.spec;
    const created = await client.create({
      apiVersion: 'resource.k8s.io/v1',
      kind: 'ResourceClaim',
      metadata: {
        name: '',
        generateName: `${name}-${entry}-`,
        namespace,
        ...(metadata?.labels ? { labels: { ...metadata.labels } } : {}),
        annotations: { ...metadata?.annotations, [POD_CLAIM_ANNOTATION]: entry },
        ownerReferences: [controllerReference(pod)],
      },
      spec: structuredClone(spec),
    });
    return created.metadata.name;
  }

  /** Whether a pod may yet use what is reserved for it. */
  async function isUsing(namespace: string, name: string, uid: string): Promise<boolean> {
    let pod = pods.get(`${namespace}/${name}`);
    // The scheduler may know of a pod before it is seen here.
    if (pod?.metadata.uid !== uid)
      pod = await ctx.client
        .of<Pod>(PODS)
        .get(namespace, name)
        .catch(error => {
          if (isReason(error, 'NotFound')) return undefined;
          throw error;
        });
    if (pod?.metadata.uid !== uid) return false;
    return !isPodTerminal(pod) && !(pod.metadata.deletionTimestamp && !pod.spec.nodeName);
  }

  async function release(claim: ResourceClaim): Promise<void> {
    const { namespace = '', finalizers = [], deletionTimestamp } = claim.metadata;
    const { reservedFor = [], allocation } = claim.status ?? {};
    const left: typeof reservedFor = [];
    for (const one of reservedFor)
      if (one.resource !== 'pods' || one.apiGroup || (await isUsing(namespace, one.name, one.uid))) left.push(one);
    let current = claim;
    if (left.length !== reservedFor.length || (left.length === 0 && allocation && reservedFor.length > 0)) {
      const { allocation: _, reservedFor: __, ...rest } = claim.status ?? {};
      const status = left.length ? { ...rest, ...(allocation ? { allocation } : {}), reservedFor: left } : rest;
      current = await client.updateStatus({ ...claim, status });
    } else if (left.length === 0 && allocation && deletionTimestamp) {
      const { allocation: _, ...rest } = claim.status ?? {};
      current = await client.updateStatus({ ...claim, status: rest });
    }
    // Not of a claim that the scheduler is just about to allocate.
    const isGivenBack = current !== claim || deletionTimestamp !== undefined;
    if (isGivenBack && !current.status?.allocation && finalizers.includes(RESOURCE_CLAIM_FINALIZER))
      await client.update({
        ...current,
        metadata: { ...current.metadata, finalizers: finalizers.filter(one => one !== RESOURCE_CLAIM_FINALIZER) },
      });
    // Of a pod that is over nobody needs the claim that was made for it.
    const owner = controllerOf(claim);
    if (owner?.kind !== 'Pod' || deletionTimestamp) return;
    const pod = pods.get(`${namespace}/${owner.name}`);
    if (pod?.metadata.uid === owner.uid && isPodTerminal(pod))
      await client.delete(namespace, claim.metadata.name, { preconditions: { uid: claim.metadata.uid! } });
  }

  return {
    name: 'resourceclaim',
    watches: [
      watch<Pod>(PODS, change => {
        const pod = change.deleted ? change.old! : change.object;
        const used = allClaimsOf(pod);
        if (used.length === 0) return [];
        if (change.deleted) for (const { name } of used) made.delete(`${pod.metadata.uid}/${name}`);
        return [
          `${POD}/${keyOf(pod)}`,
          ...used.flatMap(({ claim }) => (claim ? [`${CLAIM}/${pod.metadata.namespace}/${claim}`] : [])),
        ];
      }),
      watch<ResourceClaim>(RESOURCE_CLAIMS, change => (change.deleted ? [] : [`${CLAIM}/${keyOf(change.object)}`])),
      watch<ResourceClaimTemplate>(RESOURCE_CLAIM_TEMPLATES, change => {
        if (change.deleted) return [];
        const { namespace, name } = change.object.metadata;
        return [...pods.values()]
          .filter(
            pod =>
              pod.metadata.namespace === namespace &&
              pod.spec.resourceClaims?.some(one => one.resourceClaimTemplateName === name),
          )
          .map(pod => `${POD}/${keyOf(pod)}`);
      }),
    ],
    async reconcile({ namespace: kind, name: rest }) {
      if (kind === CLAIM) {
        const claim = claims.get(rest);
        if (!claim) return;
        try {
          await release(claim);
        } catch (error) {
          if (!isReason(error, 'NotFound', 'Conflict')) throw error;
          if (isReason(error, 'Conflict')) return { requeueAfterMs: 50 };
        }
        return;
      }
      const pod = pods.get(rest);
      if (!pod || pod.metadata.deletionTimestamp || isPodTerminal(pod)) return;
      try {
        await serve(pod);
      } catch (error) {
        if (isReason(error, 'Conflict', 'NotFound')) return { requeueAfterMs: 50 };
        ctx.events.event(pod, 'Warning', 'FailedResourceClaimCreation', `PodResourceClaim ${messageOf(error)}`);
        return { requeueAfterMs: RETRY_MS };
      }
    },
  };
}

export const resourceClaim: ControllerDefinition = {
  folder: 'resourceclaim',
  component: 'resource_claim',
  create,
};
