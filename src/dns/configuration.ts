/**
 * A Corefile made ready to answer: server blocks by zone, each with the stages that a query passes. Making one has no effect
 * until `start`, and a faulty Corefile makes none, so that the last good one stays in force.
 */

import { CorefileError, type Directive, parseCorefile, type ServerBlockText } from './corefile.ts';
import { type Answer, bareAnswer, RCODE } from './message.ts';
import type { BlockSettings, Part, PluginContext, Reply, Request, Stage } from './plugins/plugin.ts';
import { PLUGINS } from './plugins/registry.ts';
import { wireOf } from './records.ts';
import { reverseZones } from './reverse-name.ts';
import type { Zone } from './zone.ts';

const REFUSED = bareAnswer(RCODE.REFUSED);
const DNS_PORT = 53;
/** Stages before these have a say in what the cluster's names mean. */
const MEDDLING: ReadonlySet<string> = new Set(['log', 'rewrite', 'template', 'hosts']);

export interface ServerBlock {
  /** As metrics name it: `dns://:53`. */
  readonly server: string;
  /** The first of its zones, with a final dot. */
  readonly zone: string;
  readonly settings: BlockSettings;
  /** Zones whose answers need no stage; empty when stages come before them. */
  readonly direct: readonly Zone[];
  readonly answer: (request: Request) => Reply;
}

export type ConfigurationContext = Omit<PluginContext, 'zones' | 'settings' | 'resolve'>;

export class Configuration {
  readonly blocks: readonly ServerBlock[];
  readonly followsChanges: boolean;
  readonly #byZone = new Map<string, ServerBlock>();
  readonly #only: ServerBlock | undefined;
  readonly #parts: Part[] = [];
  readonly #settings: BlockSettings[] = [];
  readonly #stop = new AbortController();

  /** Throws CorefileError. */
  constructor(text: string, context: ConfigurationContext) {
    const blocks = parseCorefile(text);
    if (blocks.length === 0)
      throw new CorefileError(1, 'no server block; a Corefile starts with a zone such as .:53 {');
    this.blocks = this.#compileAll(blocks, context);
    this.followsChanges = this.blocks.some(block => block.settings.followsChanges);
    this.#only = this.blocks.length === 1 ? this.#byZone.get('\0') : undefined;
  }

  /** The block with the longest zone that holds the name (wire form, lower case). */
  blockFor(name: string): ServerBlock | undefined {
    if (this.#only) return this.#only;
    for (let at = 0; at < name.length; at += name.charCodeAt(at) + 1) {
      const block = this.#byZone.get(name.slice(at));
      if (block) return block;
    }
    return undefined;
  }

  resolve(request: Request): Reply {
    return this.blockFor(request.name)?.answer(request) ?? REFUSED;
  }

  start(): void {
    // What others ask through comes first.
    for (const part of this.#parts.toReversed()) part.start?.(this.#stop.signal);
  }
  stop(): void {
    this.#stop.abort();
    for (const { zones } of this.#settings) for (const zone of zones) zone.close();
  }

  #compileAll(blocks: readonly ServerBlockText[], context: ConfigurationContext): readonly ServerBlock[] {
    try {
      return blocks.map(block => this.#compile(block, context));
    } catch (error) {
      // Zones made so far have subscribed to changes.
      this.stop();
      throw error;
    }
  }

  #compile(block: ServerBlockText, shared: ConfigurationContext): ServerBlock {
    const zones = block.keys.flatMap(key => zonesOfKey(key, block.line));
    const settings: BlockSettings = {
      rotates: false,
      logsErrors: false,
      followsChanges: false,
      lameDuckMs: 0,
      endpoints: [],
      zones: [],
    };
    this.#settings.push(settings);
    const context: PluginContext = { ...shared, zones, settings, resolve: request => this.resolve(request) };
    const byName = Map.groupBy(block.directives, directive => directive.name);
    for (const [name, [first]] of byName) if (!PLUGINS.some(plugin => plugin.name === name)) throw unknown(first!);
    const stages: { name: string; stage: Stage }[] = [];
    for (const { name, repeats, setup } of PLUGINS) {
      const directives = byName.get(name);
      if (!directives) continue;
      if (directives.length > 1 && !repeats)
        throw new CorefileError(
          directives[1]!.line,
          `plugin/${name}: this plugin can only be used once per Server Block`,
        );
      const part = setup(directives, context);
      this.#parts.push(part);
      if (part.stage) stages.push({ name, stage: part.stage });
    }
    const made: ServerBlock = {
      server: `dns://:${DNS_PORT}`,
      zone: `${zones[0]}.`,
      settings,
      direct: stages.some(({ name }) => MEDDLING.has(name)) ? [] : settings.zones,
      answer: chain(stages.map(({ stage }) => stage)),
    };
    for (const zone of zones) {
      const wire = wireOf(zone);
      if (this.#byZone.has(wire))
        throw new CorefileError(block.line, `cannot serve dns://${zone}.:${DNS_PORT} - it is already defined`);
      this.#byZone.set(wire, made);
    }
    return made;
  }
}

/** What no stage answers is refused. */
function chain(stages: readonly Stage[]): (request: Request) => Reply {
  return stages.reduceRight<(request: Request) => Reply>(
    (next, stage) => request => stage(request, next),
    (): Answer => REFUSED,
  );
}

function unknown(directive: Directive): CorefileError {
  return new CorefileError(
    directive.line,
    `Unknown directive '${directive.name}'; there are: ${PLUGINS.map(({ name }) => name).join(' ')}`,
  );
}

/** `.:53`, `dns://example.local.:53`, `10.0.0.0/24`: zones as text without final dot. */
function zonesOfKey(key: string, line: number): string[] {
  const [, scheme, rest] = /^(?:([a-z]+):\/\/)?(.*)$/i.exec(key)!;
  if (scheme !== undefined && scheme !== 'dns')
    throw new CorefileError(line, `${key}: only plain DNS is served, not ${scheme}://`);
  const [, zone = '', port] = /^(.*?)(?::(\d+))?$/.exec(rest!)!;
  if (port !== undefined && Number(port) !== DNS_PORT)
    throw new CorefileError(line, `${key}: only port ${DNS_PORT} is served`);
  try {
    if (zone.includes('/')) return reverseZones(zone);
    wireOf(zone);
  } catch {
    throw new CorefileError(line, `${key}: not a zone`);
  }
  return [zone.replace(/\.$/, '').toLowerCase()];
}

/** What a cluster starts with: kubeadm's Corefile. */
export function defaultCorefile(clusterDomain: string): string {
  return `.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes ${clusterDomain} in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success ${clusterDomain}
       disable denial ${clusterDomain}
    }
    loop
    reload
    loadbalance
}
`;
}
