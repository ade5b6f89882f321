/** Writes what the check of types found into the status of each validating policy, once for each of its generations. */

import type { ValidatingAdmissionPolicy } from '../../api/admissionregistration/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { VALIDATING_ADMISSION_POLICIES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import { typeWarnings } from './policy-type-check.ts';

export interface PolicyStatusesOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly log: Logger;
}

export class PolicyStatuses {
  readonly #options: PolicyStatusesOptions;
  #scheduled = false;
  #working: Promise<void> = Promise.resolve();

  constructor(options: PolicyStatusesOptions) {
    this.#options = options;
  }

  /** Follows the policies there are and will be; returns a function that ends it. */
  follow(): () => void {
    const end = this.#options.reader().onChange(VALIDATING_ADMISSION_POLICIES, () => this.#schedule());
    this.#schedule();
    return end;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#working = this.#working.then(async () => {
      await new Promise(resolve => setImmediate(resolve));
      this.#scheduled = false;
      const policies = this.#options.reader().list(VALIDATING_ADMISSION_POLICIES);
      for (const policy of policies as readonly ValidatingAdmissionPolicy[]) await this.#check(policy);
    });
  }
  async #check(policy: ValidatingAdmissionPolicy): Promise<void> {
    const { metadata, status } = policy;
    const { table } = this.#options.reader();
    if (!table || status?.observedGeneration === metadata.generation) return;
    try {
      const expressionWarnings = typeWarnings(policy, table);
      const typeChecking = expressionWarnings.length > 0 ? { expressionWarnings } : {};
      const next = { ...status, observedGeneration: metadata.generation, typeChecking };
      await this.#options
        .transport()
        .update({ of: VALIDATING_ADMISSION_POLICIES, name: metadata.name, subresource: 'status' }, {
          ...policy,
          status: next,
        } as KubeObject);
    } catch (error) {
      if (isReason(error, 'Conflict') || isReason(error, 'NotFound')) return;
      this.#options.log.warn('a policy could not be checked for types', {
        policy: metadata.name,
        error: messageOf(error),
      });
    }
  }
}
