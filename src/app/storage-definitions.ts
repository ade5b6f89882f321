/**
 * The custom resources of volume snapshots (snapshot.storage.k8s.io/v1) and of volume populators, as kubernetes-csi defines them, and the
 * snapshot class of cox-local. Definitions that an administrator has put in their place, or changed, stay.
 */

import type { CustomResourceDefinition } from '../api/apiextensions/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Client } from '../client/client.ts';
import { keepDefinition } from '../client/definitions.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import { LOCAL_DRIVER } from '../localdriver/names.ts';

const GROUP = 'snapshot.storage.k8s.io';
const CLASSES: ResourceId = { group: GROUP, version: 'v1', resource: 'volumesnapshotclasses' };

const text = { type: 'string' };
const flag = { type: 'boolean' };
const time = { type: 'string', format: 'date-time' };
const number = { type: 'integer', format: 'int64' };
const size = { 'x-kubernetes-int-or-string': true };
const object = (properties: object, required: readonly string[] = []) => ({
  type: 'object',
  properties,
  ...(required.length ? { required } : {}),
});
const policy = { type: 'string', enum: ['Delete', 'Retain'] };
const failure = object({ message: text, time });
const column = (name: string, jsonPath: string, type = 'string') => ({ name, jsonPath, type });

function definition(
  kind: string,
  shortNames: readonly string[],
  options: {
    readonly group?: string;
    readonly version?: string;
    readonly approved?: string;
    readonly scope: 'Namespaced' | 'Cluster';
    readonly properties: object;
    readonly required: readonly string[];
    readonly hasStatus: boolean;
    readonly columns: readonly object[];
  },
): CustomResourceDefinition {
  const { group = GROUP, version = 'v1', approved = 'kubernetes-csi/external-snapshotter/pull/814' } = options;
  const singular = kind.toLowerCase();
  const plural = singular.endsWith('s') ? `${singular}es` : `${singular}s`;
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      annotations: { 'api-approved.kubernetes.io': `https://github.com/${approved}` },
    },
    spec: {
      group,
      scope: options.scope,
      names: { kind, listKind: `${kind}List`, plural, singular, shortNames: [...shortNames] },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          additionalPrinterColumns: [...options.columns, column('Age', '.metadata.creationTimestamp', 'date')],
          ...(options.hasStatus ? { subresources: { status: {} } } : {}),
          schema: {
            openAPIV3Schema: object(
              { apiVersion: text, kind: text, metadata: { type: 'object' }, ...options.properties },
              options.required,
            ),
          },
        },
      ],
    },
  } as CustomResourceDefinition;
}

const SNAPSHOT = definition('VolumeSnapshot', ['vs'], {
  scope: 'Namespaced',
  required: ['spec'],
  hasStatus: true,
  properties: {
    spec: object(
      {
        source: {
          ...object({ persistentVolumeClaimName: text, volumeSnapshotContentName: text }),
          oneOf: [{ required: ['persistentVolumeClaimName'] }, { required: ['volumeSnapshotContentName'] }],
        },
        volumeSnapshotClassName: text,
      },
      ['source'],
    ),
    status: object({
      boundVolumeSnapshotContentName: text,
      creationTime: time,
      error: { ...failure, nullable: true },
      readyToUse: flag,
      restoreSize: size,
      volumeGroupSnapshotName: text,
    }),
  },
  columns: [
    column('ReadyToUse', '.status.readyToUse', 'boolean'),
    column('SourcePVC', '.spec.source.persistentVolumeClaimName'),
    column('SourceSnapshotContent', '.spec.source.volumeSnapshotContentName'),
    column('RestoreSize', '.status.restoreSize'),
    column('SnapshotClass', '.spec.volumeSnapshotClassName'),
    column('SnapshotContent', '.status.boundVolumeSnapshotContentName'),
    column('CreationTime', '.status.creationTime', 'date'),
  ],
});
const CONTENT = definition('VolumeSnapshotContent', ['vsc', 'vscs'], {
  scope: 'Cluster',
  required: ['spec'],
  hasStatus: true,
  properties: {
    spec: object(
      {
        deletionPolicy: policy,
        driver: text,
        source: object({ snapshotHandle: text, volumeHandle: text }),
        sourceVolumeMode: text,
        volumeSnapshotClassName: text,
        volumeSnapshotRef: object({
          apiVersion: text,
          fieldPath: text,
          kind: text,
          name: text,
          namespace: text,
          resourceVersion: text,
          uid: text,
        }),
      },
      ['deletionPolicy', 'driver', 'source', 'volumeSnapshotRef'],
    ),
    status: object({
      creationTime: number,
      error: { ...failure, nullable: true },
      readyToUse: flag,
      restoreSize: { ...number, minimum: 0 },
      snapshotHandle: text,
      volumeGroupSnapshotHandle: text,
    }),
  },
  columns: [
    column('ReadyToUse', '.status.readyToUse', 'boolean'),
    column('RestoreSize', '.status.restoreSize', 'integer'),
    column('DeletionPolicy', '.spec.deletionPolicy'),
    column('Driver', '.spec.driver'),
    column('VolumeSnapshotClass', '.spec.volumeSnapshotClassName'),
    column('VolumeSnapshot', '.spec.volumeSnapshotRef.name'),
    column('VolumeSnapshotNamespace', '.spec.volumeSnapshotRef.namespace'),
  ],
});
const CLASS = definition('VolumeSnapshotClass', ['vsclass', 'vsclasses'], {
  scope: 'Cluster',
  required: ['deletionPolicy', 'driver'],
  hasStatus: false,
  properties: {
    deletionPolicy: policy,
    driver: text,
    parameters: { type: 'object', additionalProperties: text },
  },
  columns: [column('Driver', '.driver'), column('DeletionPolicy', '.deletionPolicy')],
});

const POPULATOR = definition('VolumePopulator', [], {
  group: 'populator.storage.k8s.io',
  version: 'v1beta1',
  approved: 'kubernetes/enhancements/pull/2934',
  scope: 'Cluster',
  required: ['sourceKind'],
  hasStatus: false,
  properties: { sourceKind: object({ group: text, kind: text }, ['group', 'kind']) },
  columns: [column('SourceKind', '.sourceKind')],
});

export const STORAGE_DEFINITIONS = [POPULATOR, SNAPSHOT, CONTENT, CLASS];

/** Can be made only once its definition is served. */
const LOCAL_SNAPSHOT_CLASS = {
  apiVersion: `${GROUP}/v1`,
  kind: 'VolumeSnapshotClass',
  metadata: {
    name: LOCAL_DRIVER,
    annotations: { 'snapshot.storage.kubernetes.io/is-default-class': 'true' },
  },
  driver: LOCAL_DRIVER,
  deletionPolicy: 'Delete',
} as KubeObject;
/** Who has written the definitions of this and of earlier versions. */
const MANAGER = 'kube-apiserver';

const RETRY_MS = 100;
const TRIES_MAX = 300;

/** Makes what is missing and brings what we wrote up to date, beside whatever else starts. Gives up after half a minute, and says so. */
export async function ensureStorageDefinitions(
  transport: Transport,
  { clock, log, signal }: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  const client = new Client(transport);
  try {
    for (const definition of STORAGE_DEFINITIONS) await keepDefinition(client, definition, { manager: MANAGER });
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await client.of(CLASSES).ensure(LOCAL_SNAPSHOT_CLASS);
        return;
      } catch (error) {
        // Until its definition is served.
        if (!isReason(error, 'NotFound') || tries >= TRIES_MAX) throw error;
        await clock.sleep(RETRY_MS, signal);
      }
    }
  } catch (error) {
    log.warn('volume snapshots and populators cannot be used', { error: messageOf(error) });
  }
}
