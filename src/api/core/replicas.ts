/** What kinds that keep a number of pods have in common: the scale subresource, and for the two replica controllers columns and status. */

import type { Kind } from '../kind.ts';
import { ageColumn, containerColumns, integer, nameColumn, wideText } from '../machinery/columns.ts';
import type { Errors } from '../machinery/validation.ts';
import type { KubeObject } from '../meta.ts';
import { checkReplicaStatus } from './template-validation.ts';
import type { PodTemplateSpec } from './v1.gen.ts';

interface Replicated extends KubeObject {
  spec?: { replicas?: number; template?: PodTemplateSpec };
  status?: { replicas?: number; readyReplicas?: number };
}

/** `selector` prints the object's, as the scale subresource wants it. */
export function replicaScale<T extends Replicated>(selector: (object: T) => string): NonNullable<Kind<T>['scale']> {
  return {
    replicas: object => object.spec?.replicas ?? 0,
    setReplicas: (object, replicas) => {
      object.spec = { ...object.spec, replicas };
    },
    statusReplicas: object => object.status?.replicas ?? 0,
    selector,
  };
}

/** Of ReplicaSets and ReplicationControllers. */
export function replicaControllerParts<T extends Replicated>(
  selector: (object: T) => string,
): Pick<Kind<T>, 'validateStatusUpdate' | 'selectableFields' | 'columns' | 'scale'> {
  return {
    validateStatusUpdate: object => {
      const errors: Errors = [];
      checkReplicaStatus(errors, object.status, ['fullyLabeledReplicas', 'readyReplicas', 'availableReplicas']);
      return errors;
    },
    selectableFields: { 'status.replicas': object => String(object.status?.replicas ?? 0) },
    columns: [
      nameColumn,
      integer('Desired', object => object.spec?.replicas),
      integer('Current', object => object.status?.replicas),
      integer('Ready', object => object.status?.readyReplicas),
      ageColumn,
      ...containerColumns<T>(object => object.spec?.template?.spec?.containers),
      wideText('Selector', selector),
    ],
    scale: replicaScale(selector),
  };
}
