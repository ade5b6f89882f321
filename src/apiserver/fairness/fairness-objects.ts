/**
 * Keeps the flow schemas and priority levels there: writes the mandatory and suggested ones when they are missing, brings
 * back those that follow our list (annotation `apf.kubernetes.io/autoupdate-spec`), tells in each schema's status whether its
 * level exists, and hands everything that changes to the fairness that acts on it.
 */

import type { FlowSchema, PriorityLevelConfiguration } from '../../api/flowcontrol/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import type { KubeObject } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import { MANDATORY_LEVELS, MANDATORY_SCHEMAS, SUGGESTED_LEVELS, SUGGESTED_SCHEMAS } from './bootstrap-objects.ts';
import type { Fairness } from './fairness.ts';

const AUTO_UPDATE = 'apf.kubernetes.io/autoupdate-spec';

export interface FairnessObjectsOptions {
  readonly fairness: Fairness;
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly clock: Clock;
  readonly log: Logger;
}

type Configuration = FlowSchema | PriorityLevelConfiguration;

export class FairnessObjects {
  readonly #options: FairnessObjectsOptions;
  #scheduled = false;
  #working: Promise<void> = Promise.resolve();

  constructor(options: FairnessObjectsOptions) {
    this.#options = options;
  }

  /** Writes what is missing, and acts on what there is. On an unchanged cluster it writes nothing. */
  async bootstrap(): Promise<void> {
    await this.#ensureAll();
    this.#configure();
  }
  /** Acts on every change from now on, and tells each schema how it stands. */
  follow(): void {
    this.#schedule();
    for (const kind of [FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS])
      this.#options.reader().onChange(kind, () => this.#schedule());
  }

  #schemas(): readonly FlowSchema[] {
    return this.#options.reader().list(FLOW_SCHEMAS) as readonly FlowSchema[];
  }
  #levels(): readonly PriorityLevelConfiguration[] {
    return this.#options.reader().list(PRIORITY_LEVEL_CONFIGURATIONS) as readonly PriorityLevelConfiguration[];
  }
  #configure(): void {
    this.#options.fairness.configure(this.#schemas(), this.#levels());
  }

  // Changes come in bursts, our own among them: one pass follows them all.
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#working = this.#working.then(async () => {
      await new Promise(resolve => setImmediate(resolve));
      this.#scheduled = false;
      this.#configure();
      try {
        await this.#ensureAll();
        await this.#tellDangling();
      } catch (error) {
        this.#options.log.warn('flow schemas and priority levels could not be kept', { error: messageOf(error) });
      }
    });
  }

  async #ensureAll(): Promise<void> {
    const ensure = (of: ResourceId, objects: readonly Configuration[], mandatory: boolean) =>
      objects.map(object => this.#ensure(of, object, mandatory));
    await Promise.all([
      ...ensure(PRIORITY_LEVEL_CONFIGURATIONS, MANDATORY_LEVELS, true),
      ...ensure(PRIORITY_LEVEL_CONFIGURATIONS, SUGGESTED_LEVELS, false),
      ...ensure(FLOW_SCHEMAS, MANDATORY_SCHEMAS, true),
      ...ensure(FLOW_SCHEMAS, SUGGESTED_SCHEMAS, false),
    ]);
  }
  async #ensure(of: ResourceId, wanted: Configuration, mandatory: boolean): Promise<void> {
    const { name } = wanted.metadata;
    const current = this.#options.reader().get(of, '', name) as Configuration | undefined;
    const metadata = { ...(current ?? wanted).metadata };
    metadata.annotations = { ...metadata.annotations, [AUTO_UPDATE]: 'true' };
    const next: Configuration = { ...(current ?? wanted), metadata, spec: wanted.spec } as Configuration;
    const transport = this.#options.transport();
    if (!current) {
      await transport.create({ of }, next).catch(error => {
        if (!isReason(error, 'AlreadyExists')) throw error;
      });
      return;
    }
    if (
      current.metadata.deletionTimestamp ||
      semanticEqual(withoutDefaults(current.spec), withoutDefaults(wanted.spec))
    )
      return;
    const follows = current.metadata.annotations?.[AUTO_UPDATE];
    // Without the annotation an object that nobody changed since it was made follows too.
    if (!mandatory && (follows === undefined ? current.metadata.generation !== 1 : follows !== 'true')) return;
    await transport.update({ of, name }, next).catch(error => {
      if (!isReason(error, 'Conflict') && !isReason(error, 'NotFound')) throw error;
    });
  }

  async #tellDangling(): Promise<void> {
    const levels = new Set(this.#levels().map(({ metadata }) => metadata.name));
    await Promise.all(
      this.#schemas().map(schema => this.#tell(schema, levels.has(schema.spec.priorityLevelConfiguration.name))),
    );
  }
  async #tell(schema: FlowSchema, found: boolean): Promise<void> {
    const level = JSON.stringify(schema.spec.priorityLevelConfiguration.name);
    const conditions = schema.status?.conditions ?? [];
    const status = found ? 'False' : 'True';
    if (conditions.some(condition => condition.type === 'Dangling' && condition.status === status)) return;
    const condition = {
      type: 'Dangling',
      status,
      lastTransitionTime: formatTime(this.#options.clock.now()),
      reason: found ? 'Found' : 'NotFound',
      message: `This FlowSchema references the PriorityLevelConfiguration object named ${level} ${found ? 'and it exists' : 'but there is no such object'}`,
    };
    const others = conditions.filter(({ type }) => type !== 'Dangling');
    const next = { ...schema, status: { conditions: [...others, condition] } } as KubeObject;
    await this.#options
      .transport()
      .update({ of: FLOW_SCHEMAS, name: schema.metadata.name, subresource: 'status' }, next)
      .catch(error => {
        if (!isReason(error, 'Conflict') && !isReason(error, 'NotFound')) throw error;
      });
  }
}

/** False booleans are as good as absent. */
function withoutDefaults(spec: unknown): unknown {
  return JSON.parse(JSON.stringify(spec, (_, value) => (value === false ? undefined : value)));
}
