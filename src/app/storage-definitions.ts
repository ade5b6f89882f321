/**
 * The custom resources of volume snapshots (snapshot.storage.k8s.io/v1) and of volume populators, as kubernetes-csi defines them, and the
 * snapshot class of cox-local. Definitions that an administrator has put in their place stay.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Client } from '../client/client.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import { LOCAL_DRIVER } from '../localdriver/names.ts';

const GROUP = 'snapshot.storage.k8s.io';
const DEFINITIONS: ResourceId = { group: 'apiextensions.k8s.io', version: 'v1', resource: 'customresourcedefinitions' };
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
): KubeObject {
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
      names: { kind, listKind: `${kind}List`, plural, singular, shortNames },
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
  } as KubeObject;
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

const STORAGE_DEFINITIONS: readonly (readonly [ResourceId, KubeObject])[] = [POPULATOR, SNAPSHOT, CONTENT, CLASS].map(
  one => [DEFINITIONS, one] as const,
);

/** Can be made only once its definition is served. */
const LOCAL_SNAPSHOT_CLASS: readonly [ResourceId, KubeObject] = [
  CLASSES,
  {
    apiVersion: `${GROUP}/v1`,
    kind: 'VolumeSnapshotClass',
    metadata: {
      name: LOCAL_DRIVER,
      annotations: { 'snapshot.storage.kubernetes.io/is-default-class': 'true' },
    },
    driver: LOCAL_DRIVER,
    deletionPolicy: 'Delete',
  } as KubeObject,
];

const RETRY_MS = 100;
const TRIES_MAX = 300;

/** Makes what is missing, beside whatever else starts. Gives up after half a minute, and says so. */
export async function ensureStorageDefinitions(
  transport: Transport,
  { clock, log, signal }: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  for (const [of, wanted] of [...STORAGE_DEFINITIONS, LOCAL_SNAPSHOT_CLASS]) {
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await new Client(transport).of(of).ensure(wanted);
        break;
      } catch (error) {
        // The class, until its definition is served.
        if (!isReason(error, 'NotFound') || tries >= TRIES_MAX) {
          log.warn('volume snapshots and populators cannot be used', {
            object: wanted.metadata.name,
            error: messageOf(error),
          });
          return;
        }
        await clock.sleep(RETRY_MS, signal);
      }
    }
  }
}
