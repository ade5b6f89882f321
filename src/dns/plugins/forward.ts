/** `forward`: asks other servers. One that is this server itself is refused, as `loop` refuses longer rings. */

import { messageOf } from '../../base/errors.ts';
import type { Directive } from '../corefile.ts';
import { FORWARDER_DEFAULTS, Forwarder, type ForwarderOptions } from '../forwarder.ts';
import { RCODE } from '../message.ts';
import { answerFromReply, textOf } from '../records.ts';
import { formatUpstream, parseUpstream, type UpstreamAddress } from '../upstream.ts';
import {
  durationMs,
  type Plugin,
  type PluginContext,
  takes,
  unknownProperty,
  wholeNumber,
  withinAny,
  wrong,
  zonesOf,
} from './plugin.ts';

const UPSTREAMS_MAX = 15;
const DNS_PORT = 53;
const RESOLVER = '/etc/resolv.conf';

export const forward: Plugin = {
  name: 'forward',
  repeats: true,
  setup(directives, context) {
    const all = directives.map(directive => optionsOf(directive, context));
    // Without servers (an empty resolv.conf) there is nobody to ask.
    const routes = all
      .filter(({ options }) => options.upstreams.length > 0)
      .map(({ options, covers }) => ({ covers, forwarder: new Forwarder(options) }));
    return {
      start: signal => {
        for (const { forwarder } of routes) forwarder.start(signal);
      },
      stage(request, next) {
        const route = routes.find(({ covers }) => covers(request.name));
        if (!route) return next(request);
        const question = { ...request, name: textOf(request.name) };
        return route.forwarder.exchange(question).then(reply => answerFromReply(reply, request.name));
      },
    };
  },
};

function optionsOf(
  directive: Directive,
  context: PluginContext,
): { options: ForwarderOptions; covers: (name: string) => boolean } {
  const [from, ...to] = directive.args;
  if (from === undefined || to.length === 0) wrong(directive, 'needs a zone and servers: forward . /etc/resolv.conf');
  const within = withinAny(zonesOf(directive, [from]));
  let excepted = (_: string): boolean => false;
  let settings: Partial<ForwarderOptions> = {};
  let servername: string | undefined;
  let files: { cert?: string; key?: string; ca?: string } = {};
  for (const property of directive.block) {
    const { name, args } = property;
    if (name === 'except') excepted = withinAny(zonesOf(property, args));
    else if (name === 'force_tcp') settings = { ...settings, forcesTcp: true };
    else if (name === 'prefer_udp') settings = { ...settings, prefersUdp: true };
    else if (name === 'max_fails')
      settings = { ...settings, failsMax: wholeNumber(property, args[0], { min: 0, max: 1000 }) };
    else if (name === 'max_concurrent')
      settings = { ...settings, concurrentMax: wholeNumber(property, args[0], { min: 1, max: 100_000 }) };
    else if (name === 'policy') {
      const [policy] = args;
      if (policy !== 'random' && policy !== 'round_robin' && policy !== 'sequential')
        wrong(property, `unknown policy '${policy ?? ''}'`);
      settings = { ...settings, policy };
    } else if (name === 'health_check') {
      settings = { ...settings, ...healthCheck(property) };
    } else if (name === 'failover') {
      settings = { ...settings, failover: new Set(args.map(code => rcodeOf(property, code))) };
    } else if (name === 'tls_servername') servername = args[0];
    else if (name === 'tls') files = tlsFiles(property, context);
    else if (name === 'expire') durationMs(property, args[0]);
    else if (name === 'failfast_all_unhealthy_upstreams') takes(property, { args: 0 });
    else unknownProperty(directive, property);
  }
  const { log, clock, random, metrics } = context;
  return {
    covers: name => within(name) && !excepted(name),
    options: {
      ...FORWARDER_DEFAULTS,
      ...settings,
      upstreams: upstreamsOf(directive, to, context),
      tls: { ...files, ...(servername ? { servername } : {}) },
      log,
      clock,
      random,
      metrics,
    },
  };
}

function upstreamsOf(directive: Directive, to: readonly string[], context: PluginContext): UpstreamAddress[] {
  const found = to.flatMap(text => {
    const upstream = parseUpstream(text);
    if (upstream) return [upstream];
    // A node without this file has no name servers of its own.
    const content = text.includes('/') ? (context.readFile(text) ?? (text === RESOLVER ? '' : undefined)) : undefined;
    if (content === undefined) return wrong(directive, `not an IP address or file: "${text}"`);
    return [...content.matchAll(/^\s*nameserver\s+(\S+)/gm)].flatMap(([, address]) => {
      // A zone (fe80::1%eth0) names a link of another machine.
      const server = parseUpstream(address!.split('%')[0]!);
      return server ? [{ ...server, port: DNS_PORT }] : [];
    });
  });
  const others = found.filter(({ address, port }) => !(context.addresses.includes(address) && port === DNS_PORT));
  if (others.length < found.length)
    context.warn(
      'DNSLoop',
      `forward ${directive.args.join(' ')} (line ${directive.line}) names this server itself; left out`,
    );
  const unique = [...new Map(others.map(upstream => [formatUpstream(upstream), upstream])).values()];
  if (unique.length > UPSTREAMS_MAX) wrong(directive, `more than ${UPSTREAMS_MAX} TOs configured: ${unique.length}`);
  return unique;
}

function healthCheck(property: Directive): Partial<ForwarderOptions> {
  const [interval, ...rest] = property.args;
  let settings: Partial<ForwarderOptions> = { probeMs: Math.max(100, durationMs(property, interval)) };
  for (let at = 0; at < rest.length; at++) {
    if (rest[at] === 'no_rec') settings = { ...settings, probeRecursion: false };
    else if (rest[at] === 'domain' && rest[at + 1] !== undefined)
      settings = { ...settings, probeName: zonesOf(property, [rest[++at]!])[0]! };
    else wrong(property, `unknown option '${rest[at]}'`);
  }
  return settings;
}

function rcodeOf(property: Directive, text: string): number {
  const code = (RCODE as Readonly<Record<string, number>>)[text.toUpperCase()];
  return code === undefined || code === RCODE.NOERROR ? wrong(property, `'${text}' is no code to fail over on`) : code;
}

function tlsFiles(property: Directive, context: PluginContext): { cert?: string; key?: string; ca?: string } {
  const read = (path: string): string => {
    try {
      return context.readFile(path) ?? wrong(property, `file not found: ${path}`);
    } catch (error) {
      return wrong(property, messageOf(error));
    }
  };
  const texts = property.args.map(read);
  if (texts.length === 0) return {};
  if (texts.length === 1) return { ca: texts[0]! };
  if (texts.length > 3) wrong(property, 'takes at most CERT KEY CA');
  return { cert: texts[0]!, key: texts[1]!, ...(texts[2] ? { ca: texts[2] } : {}) };
}
