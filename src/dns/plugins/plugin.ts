/**
 * What a plugin is: a directive of a Corefile that takes part in answering, as in CoreDNS. `registry.ts` lists them in the
 * order in which a query passes them, which is not the order in which a Corefile names them.
 */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { MetricsRegistry } from '../../base/metrics.ts';
import type { Random } from '../../base/random.ts';
import type { ClusterRecords } from '../cluster-records.ts';
import { CorefileError, type Directive } from '../corefile.ts';
import type { Answer } from '../message.ts';
import { isWithin, wireOf } from '../records.ts';
import { reverseZones } from '../reverse-name.ts';
import type { Zone } from '../zone.ts';

/** One question, of class IN. */
export interface Request {
  /** In wire form as latin1, lower case: what answers point into. */
  readonly name: string;
  readonly type: number;
  readonly via: 'udp' | 'tcp';
  readonly dnssecOk: boolean;
  readonly checkingDisabled: boolean;
  readonly recursionDesired: boolean;
  /** The client's address; '' for a question of our own. */
  readonly remote: string;
  /** How many CNAMEs led here. */
  readonly depth: number;
}

/** A promise when somebody else has to be asked. */
export type Reply = Answer | Promise<Answer>;

/** Answers, or hands the request (changed, perhaps) to `next` and may change what comes back. Rejects with what to log. */
export type Stage = (request: Request, next: (request: Request) => Reply) => Reply;

/** What plugins tell the server about their block. */
export interface BlockSettings {
  /** Equal answers take turns. */
  rotates: boolean;
  logsErrors: boolean;
  followsChanges: boolean;
  lameDuckMs: number;
  /** HTTP by `host:port` (host '' is the server's own addresses) and path. */
  readonly endpoints: { readonly address: string; readonly path: string; readonly reply: () => HttpReply }[];
  /** Zones that may be asked directly, as long as no stage before them has a say. */
  readonly zones: Zone[];
}

export interface HttpReply {
  readonly code: number;
  readonly text: string;
  readonly type?: string;
}

export interface PluginContext {
  /** Of the server block, as text: `.`, `example.local`. */
  readonly zones: readonly string[];
  readonly settings: BlockSettings;
  readonly records: ClusterRecords;
  /** The server's own. */
  readonly addresses: readonly string[];
  /** Content of a file: `/etc/coredns/NAME` is a key of the ConfigMap. Undefined when there is none. */
  readonly readFile: (path: string) => string | undefined;
  /** Asks the whole server, whichever block it takes. */
  readonly resolve: (request: Request) => Reply;
  /** Tells the administrator: log and event. */
  readonly warn: (reason: string, message: string) => void;
  /** Of this configuration; gone with it. */
  readonly metrics: MetricsRegistry;
  /** All metrics of the server. */
  readonly renderMetrics: () => string;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

export interface Part {
  readonly stage?: Stage;
  /** Called once the whole configuration is in force; it ends when the signal aborts. */
  readonly start?: (signal: AbortSignal) => void;
}

export interface Plugin {
  readonly name: string;
  /** May stand in a block more than once; otherwise twice is an error. */
  readonly repeats?: true;
  /** `directives` has one, or several when it repeats. Throws CorefileError. */
  readonly setup: (directives: readonly Directive[], context: PluginContext) => Part;
}

export function wrong(directive: Directive, problem: string): never {
  throw new CorefileError(directive.line, `${directive.name}: ${problem}`);
}

/** Refuses arguments or a block that the directive does not have. */
export function takes(directive: Directive, limits: { readonly args: number; readonly block?: boolean }): void {
  if (directive.args.length > limits.args)
    wrong(directive, `Wrong argument count or unexpected argument '${directive.args[limits.args]}'`);
  if (!limits.block && directive.block.length > 0) wrong(directive, `unknown property '${directive.block[0]!.name}'`);
}

export function unknownProperty(directive: Directive, property: Directive): never {
  throw new CorefileError(property.line, `${directive.name}: unknown property '${property.name}'`);
}

export function wholeNumber(
  directive: Directive,
  text: string | undefined,
  range: { min: number; max: number },
): number {
  const value = Number(text);
  if (text === undefined || !/^\d+$/.test(text) || value < range.min || value > range.max)
    wrong(directive, `'${text ?? ''}' is not a number between ${range.min} and ${range.max}`);
  return value;
}

const UNIT_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Go's durations: `5s`, `1m30s`, `500ms`; a bare number counts seconds. */
export function durationMs(directive: Directive, text: string | undefined): number {
  if (text !== undefined && /^\d+$/.test(text)) return Number(text) * 1000;
  if (text === undefined || !/^(\d+(\.\d+)?(ns|us|ms|s|m|h))+$/.test(text))
    wrong(directive, `invalid duration '${text ?? ''}'`);
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)/g))
    total += Number(number) * UNIT_MS[unit!]!;
  return total;
}

/** Zones as text without a final dot (`` for the root), address ranges as the reverse zones that they are. */
export function zonesOf(directive: Directive, texts: readonly string[]): string[] {
  return texts.flatMap(text => {
    try {
      if (text.includes('/')) return reverseZones(text);
      wireOf(text);
      return [text.replace(/\.$/, '').toLowerCase()];
    } catch {
      return wrong(directive, `'${text}' is not a zone`);
    }
  });
}

/** The zones named, else those of the block. */
export function zonesOr(directive: Directive, texts: readonly string[], context: PluginContext): string[] {
  return zonesOf(directive, texts.length > 0 ? texts : context.zones);
}

/** Whether a name lies in one of the zones. */
export function withinAny(zones: readonly string[]): (name: string) => boolean {
  const wires = zones.map(wireOf);
  return name => wires.some(zone => isWithin(name, zone));
}

/** `fallthrough [ZONES…]`: everywhere, or there. */
export function fallthroughOf(property: Directive): string[] {
  return property.args.length > 0 ? zonesOf(property, property.args) : [''];
}
