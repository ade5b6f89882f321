/** `hosts`: addresses from lines like those of /etc/hosts, in the Corefile or in a file. Files are read when the Corefile is. */

import { isIP, isIPv4 } from 'node:net';
import type { Directive } from '../corefile.ts';
import { type Answer, AnswerWriter, bareAnswer, FLAG, RCODE, TYPE } from '../message.ts';
import { textOf, wireOf } from '../records.ts';
import { addressOfReverse, canonical } from '../reverse-name.ts';
import {
  durationMs,
  fallthroughOf,
  type Plugin,
  type PluginContext,
  takes,
  wholeNumber,
  withinAny,
  wrong,
  zonesOr,
} from './plugin.ts';

const TTL_SECONDS = 3600;

class Table {
  readonly addresses = new Map<string, Set<string>>();
  readonly names = new Map<string, Set<string>>();
  add(ip: string, hosts: readonly string[]): void {
    for (const host of hosts) {
      const name = wireOf(host);
      if (!this.addresses.has(name)) this.addresses.set(name, new Set());
      this.addresses.get(name)!.add(ip);
      const at = canonical(ip);
      if (!this.names.has(at)) this.names.set(at, new Set());
      this.names.get(at)!.add(host.replace(/\.$/, ''));
    }
  }
}

export const hosts: Plugin = {
  name: 'hosts',
  setup([directive], context) {
    const { table, ttlSeconds, covers, fallsThrough, reverse } = optionsOf(directive!, context);
    const entries = context.metrics.gauge(
      'coredns_hosts_entries',
      'The combined number of entries in hosts and Corefile.',
    );
    entries.set(table.addresses.size + (reverse ? table.names.size : 0));
    return {
      stage(request, next) {
        if (!covers(request.name)) return next(request);
        const answer = lookUp(table, request, { ttlSeconds, reverse });
        return (
          answer ?? (fallsThrough(request.name) ? next(request) : { ...bareAnswer(RCODE.NXDOMAIN), flags: FLAG.AA })
        );
      },
    };
  },
};

/** Undefined: the name is not in the table. NODATA when it is, with addresses of the other family only. */
function lookUp(
  table: Table,
  { name, type }: { readonly name: string; readonly type: number },
  { ttlSeconds, reverse }: { readonly ttlSeconds: number; readonly reverse: boolean },
): Answer | undefined {
  const text = textOf(name);
  const writer = new AnswerWriter(text);
  if (type === TYPE.PTR && reverse) {
    const ip = addressOfReverse(text.split('.'));
    const found = ip === undefined ? undefined : table.names.get(ip);
    if (!found) return undefined;
    for (const host of found) writer.record('answer', text, TYPE.PTR, ttlSeconds, out => out.name(host));
    return writer.finish({ flags: FLAG.AA });
  }
  const ips = table.addresses.get(name);
  if (!ips) return undefined;
  for (const ip of ips) if (type === (isIPv4(ip) ? TYPE.A : TYPE.AAAA)) writer.address('answer', text, ip, ttlSeconds);
  return writer.finish({ flags: FLAG.AA, rotate: true });
}

function optionsOf(directive: Directive, context: PluginContext) {
  const table = new Table();
  const [file, ...zones] = directive.args;
  const content = context.readFile(file ?? '/etc/hosts');
  if (content === undefined && file !== undefined) wrong(directive, `file not found: ${file}`);
  let ttlSeconds = TTL_SECONDS;
  let fallthrough: readonly string[] | undefined;
  let reverse = true;
  const inline: Directive[] = [];
  for (const property of directive.block) {
    const { name, args } = property;
    if (name === 'ttl') ttlSeconds = wholeNumber(property, args[0], { min: 1, max: 65_535 });
    else if (name === 'no_reverse') reverse = false;
    else if (name === 'fallthrough') fallthrough = fallthroughOf(property);
    else if (name === 'reload') {
      if (durationMs(property, args[0]) > 0 && !file?.startsWith('/etc/coredns/'))
        wrong(property, 'files are not read again; a key of the ConfigMap (/etc/coredns/KEY) is followed at once');
    } else if (isIP(name)) inline.push(property);
    else wrong(property, `unknown property, and no IP address`);
  }
  for (const property of inline) {
    takes({ ...property, args: [] }, { args: 0 });
    try {
      table.add(property.name, property.args);
    } catch {
      wrong(property, `'${property.args.join(' ')}' holds no host name`);
    }
  }
  // As in /etc/hosts, what cannot be read is passed over. The machine's own file is only used when it is asked for or alone.
  if (file !== undefined || inline.length === 0)
    for (const line of (content ?? '').split('\n')) {
      const [ip, ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
      if (ip && isIP(ip)) {
        try {
          table.add(ip, names);
        } catch {
          // One odd name in a long list.
        }
      }
    }
  return {
    table,
    ttlSeconds,
    reverse,
    covers: withinAny(zonesOr(directive, zones, context)),
    fallsThrough: withinAny(fallthrough ?? []),
  };
}
