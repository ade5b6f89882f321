/**
 * Custom resource definitions at work: follows them, decides about their names, serves what they define, and empties and
 * lets go those that are deleted. Invariant: a definition whose Established condition a client can read is being served;
 * after a restart that is so before the first request.
 */

import { createHash } from 'node:crypto';
import { CLEANUP } from '../../api/apiextensions/custom-resource-definition.ts';
import type { CustomResourceDefinition } from '../../api/apiextensions/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import type { ResourceTable } from '../resource-table.ts';
import type { WebhookClient } from '../webhooks/client.ts';
import { conditionOf, desiredStatus, isEstablished, withConditions } from './definition-status.ts';
import { servedResources } from './served-resources.ts';
import { WebhookConverter } from './webhook-converter.ts';

/** Instances whose finalizers hold them are looked at again after this. */
const CLEANUP_RETRY_MS = 250;
const STATUS_ATTEMPTS = 10;

export interface CustomResourcesOptions {
  readonly table: ResourceTable;
  readonly reader: Reader;
  /** In process, with all rights. */
  readonly transport: Transport;
  readonly webhooks: WebhookClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

interface Serving {
  /** Digest of what the resources were made from. */
  readonly made: string;
  readonly stop: AbortController;
}

export class CustomResources {
  readonly #options: CustomResourcesOptions;
  readonly #serving = new Map<string, Serving>();
  /** Names of definitions whose status is being brought up to date, and whether they changed meanwhile. */
  readonly #busy = new Map<string, boolean>();
  readonly #emptying = new Set<string>();

  constructor(options: CustomResourcesOptions) {
    this.#options = options;
  }

  /** Serves what is established and follows the definitions from then on. Needs loaded caches. */
  open(): void {
    const { reader } = this.#options;
    for (const definition of this.#all()) this.#follow(definition);
    reader.onChange(CUSTOM_RESOURCE_DEFINITIONS, (object, old) => {
      if (object) this.#follow(object as CustomResourceDefinition);
      else this.#forget(old as CustomResourceDefinition);
    });
  }

  #all(): readonly CustomResourceDefinition[] {
    return this.#options.reader.list(CUSTOM_RESOURCE_DEFINITIONS) as readonly CustomResourceDefinition[];
  }
  #current(name: string): CustomResourceDefinition | undefined {
    return this.#options.reader.get(CUSTOM_RESOURCE_DEFINITIONS, '', name) as CustomResourceDefinition | undefined;
  }

  #follow(definition: CustomResourceDefinition): void {
    this.#serve(definition);
    this.#settle(definition.metadata.name);
    if (definition.metadata.deletionTimestamp && definition.metadata.finalizers?.includes(CLEANUP))
      void this.#empty(definition);
  }

  #serve(definition: CustomResourceDefinition): void {
    const { uid = '', deletionTimestamp } = definition.metadata;
    if (!isEstablished(definition)) return;
    const made = createHash('sha256')
      .update(JSON.stringify([definition.spec, definition.status?.acceptedNames, deletionTimestamp]))
      .digest('base64');
    const before = this.#serving.get(uid);
    if (before?.made === made) return;
    const stop = new AbortController();
    try {
      this.#options.table.setCustom(
        uid,
        servedResources(definition, { ended: stop.signal, converter: this.#converter(definition) }),
      );
    } catch (error) {
      this.#options.log.error('a custom resource cannot be served', {
        definition: definition.metadata.name,
        error: messageOf(error),
      });
      return;
    }
    this.#serving.set(uid, { made, stop });
    before?.stop.abort();
  }

  #converter(definition: CustomResourceDefinition): WebhookConverter | undefined {
    const { webhooks, random } = this.#options;
    if (definition.spec.conversion?.strategy !== 'Webhook') return undefined;
    return new WebhookConverter(definition, { client: webhooks, random });
  }

  #forget({ metadata: { uid = '' }, spec }: CustomResourceDefinition): void {
    this.#options.table.setCustom(uid, []);
    this.#serving.get(uid)?.stop.abort();
    this.#serving.delete(uid);
    // Its names are free for others now.
    for (const other of this.#all()) if (other.spec.group === spec.group) this.#settle(other.metadata.name);
  }

  /** Writes the status that the definition should have. */
  #settle(name: string): void {
    if (this.#busy.has(name)) {
      this.#busy.set(name, true);
      return;
    }
    const definition = this.#current(name);
    if (!definition || this.#desired(definition) === definition.status) return;
    this.#busy.set(name, false);
    void this.#writeStatus(name, current => this.#desired(current))
      .catch(error => {
        this.#options.log.warn('the status of a definition could not be written', { name, error: messageOf(error) });
      })
      .finally(() => {
        const again = this.#busy.get(name);
        this.#busy.delete(name);
        if (again) this.#settle(name);
      });
  }
  #desired(definition: CustomResourceDefinition): NonNullable<CustomResourceDefinition['status']> {
    if (definition.metadata.deletionTimestamp) return definition.status!;
    const others = this.#all().filter(other => other.metadata.uid !== definition.metadata.uid);
    return desiredStatus(definition, others, formatTime(this.#options.clock.now()));
  }
  async #writeStatus(
    name: string,
    next: (definition: CustomResourceDefinition) => NonNullable<CustomResourceDefinition['status']>,
  ): Promise<void> {
    const { transport } = this.#options;
    for (let attempt = 1; ; attempt++) {
      const definition = this.#current(name);
      if (!definition) return;
      const status = next(definition);
      if (status === definition.status) return;
      try {
        const target = { of: CUSTOM_RESOURCE_DEFINITIONS, name, subresource: 'status' };
        await transport.update(target, { ...definition, status } as KubeObject);
        return;
      } catch (error) {
        if (isReason(error, 'NotFound')) return;
        if (!isReason(error, 'Conflict') || attempt >= STATUS_ATTEMPTS) throw error;
      }
    }
  }

  /** Deletes all instances of a definition that is going, and then lets it go. */
  async #empty(definition: CustomResourceDefinition): Promise<void> {
    const { name, uid = '' } = definition.metadata;
    if (this.#emptying.has(uid)) return;
    this.#emptying.add(uid);
    const { clock, log, signal } = this.#options;
    try {
      await this.#condition(name, 'True', 'InstanceDeletionInProgress', 'CustomResource deletion is in progress');
      while (!signal.aborted && this.#current(name)?.metadata.uid === uid) {
        if (await this.#deleteInstances(definition)) break;
        await clock.sleep(CLEANUP_RETRY_MS, signal);
      }
      if (signal.aborted) return;
      await this.#condition(name, 'False', 'InstanceDeletionCompleted', 'removed all instances');
      await this.#release(name, uid);
    } catch (error) {
      if (!signal.aborted)
        log.error('instances of a definition could not be deleted', { name, error: messageOf(error) });
    } finally {
      this.#emptying.delete(uid);
    }
  }
  /** True when none is left. */
  async #deleteInstances({ spec, status }: CustomResourceDefinition): Promise<boolean> {
    const { table, transport, reader } = this.#options;
    const version = spec.versions.find(one => one.served)?.name;
    if (!version) return true;
    const of: ResourceId = { group: spec.group, version, resource: status?.acceptedNames?.plural || spec.names.plural };
    if (!table.of(of)) return true;
    await transport.deleteCollection({ of });
    return reader.list(of).length === 0;
  }
  async #condition(name: string, status: string, reason: string, message: string): Promise<void> {
    await this.#writeStatus(name, definition => {
      if (conditionOf(definition, 'Terminating')?.reason === reason) return definition.status!;
      const now = formatTime(this.#options.clock.now());
      return withConditions(definition, [{ type: 'Terminating', status, reason, message }], now);
    });
  }
  async #release(name: string, uid: string): Promise<void> {
    const current = this.#current(name);
    if (current?.metadata.uid !== uid) return;
    const finalizers = (current.metadata.finalizers ?? []).filter(finalizer => finalizer !== CLEANUP);
    try {
      await this.#options.transport.patch(
        { of: CUSTOM_RESOURCE_DEFINITIONS, name },
        { metadata: { uid, finalizers } },
        'application/merge-patch+json',
      );
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }
}
