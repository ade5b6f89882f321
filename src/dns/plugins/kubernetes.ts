/** `kubernetes`: names of the cluster. Its connection to the API server is the agent's own, so it refuses to be given another. */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import { type Match, matchEverything, parseLabelSelector } from '../../api/machinery/labels.ts';
import { messageOf } from '../../base/errors.ts';
import type { Directive } from '../corefile.ts';
import { type Answer, bareAnswer, FLAG, RCODE } from '../message.ts';
import { answerOf, recordsOf, wireOf } from '../records.ts';
import { Zone } from '../zone.ts';
import {
  fallthroughOf,
  type Plugin,
  type PluginContext,
  type Request,
  takes,
  unknownProperty,
  wholeNumber,
  wrong,
  zonesOr,
} from './plugin.ts';

const TTL_SECONDS = 5;
const TTL_SECONDS_MAX = 3600;
const CHAIN_MAX = 8;
const SERVFAIL = bareAnswer(RCODE.SERVFAIL);
const CONNECTION = new Set([
  'endpoint',
  'tls',
  'kubeconfig',
  'apiserver_qps',
  'apiserver_burst',
  'apiserver_max_inflight',
]);

export const kubernetes: Plugin = {
  name: 'kubernetes',
  setup([directive], context) {
    const zones = zonesFrom(directive!, context);
    context.settings.zones.push(...zones);
    return {
      stage(request, next) {
        for (const zone of zones) {
          const answer = zone.lookup(request.name, request.type);
          if (answer === undefined) continue;
          // Before everything is known, nothing is known not to be.
          if (answer.rcode === RCODE.NXDOMAIN && !zone.hasSynced) return SERVFAIL;
          return answer.chase === undefined ? answer : follow(request, answer, answer.chase, context);
        }
        return next(request);
      },
    };
  },
};

/** The CNAMEs known here, then what the server says of the name they lead to. */
async function follow(
  request: Request,
  answer: Answer,
  target: string,
  { resolve, log }: PluginContext,
): Promise<Answer> {
  if (request.depth >= CHAIN_MAX) return answer;
  const name = wireOf(target);
  try {
    const there = await resolve({ ...request, name, depth: request.depth + 1 });
    if (there.rcode !== RCODE.NOERROR && there.rcode !== RCODE.NXDOMAIN) return answer;
    const found = recordsOf(there, name).filter(record => record.section === 'answer');
    return answerOf(request.name, [...recordsOf(answer, request.name), ...found], {
      flags: FLAG.AA | ((there.flags ?? 0) & FLAG.RA),
    });
  } catch (error) {
    // A chain that cannot be followed is still told as far as it goes.
    log.debug('alias not followed', { target, error: messageOf(error) });
    return answer;
  }
}

function zonesFrom(directive: Directive, context: PluginContext): Zone[] {
  const all = zonesOr(directive, directive.args, context);
  const isReverse = (zone: string): boolean => /(^|\.)(in-addr|ip6)\.arpa$/.test(zone);
  const reverse = all.filter(isReverse);
  const forward = all.filter(zone => !isReverse(zone) && zone !== '');
  if (forward.length === 0)
    wrong(directive, 'needs the cluster domain as a zone: kubernetes cluster.local in-addr.arpa ip6.arpa');
  let ttlSeconds = TTL_SECONDS;
  let pods: 'insecure' | 'verified' | 'disabled' = 'disabled';
  let fallthrough: string[] = [];
  let selector: Match = matchEverything;
  let namespaceSelector: Match = matchEverything;
  let namespaces: readonly string[] = [];
  const flags = new Set<string>();
  for (const property of directive.block) {
    const { name, args } = property;
    if (name === 'ttl') ttlSeconds = wholeNumber(property, args[0], { min: 0, max: TTL_SECONDS_MAX });
    else if (name === 'fallthrough') fallthrough = fallthroughOf(property);
    else if (name === 'labels') selector = selectorOf(property);
    else if (name === 'namespace_labels') namespaceSelector = selectorOf(property);
    else if (name === 'namespaces') namespaces = args;
    else if (name === 'pods') {
      if (args[0] !== 'insecure' && args[0] !== 'verified' && args[0] !== 'disabled')
        wrong(property, `must be 'disabled', 'insecure' or 'verified', not '${args[0] ?? ''}'`);
      pods = args[0];
    } else if (name === 'endpoint_pod_names' || name === 'noendpoints') {
      takes(property, { args: 0 });
      flags.add(name);
    } else if (name === 'ignore') {
      if (args[0] !== 'empty_service')
        wrong(property, `unable to parse '${args[0] ?? ''}': only 'empty_service' can be ignored`);
      flags.add('empty_service');
    } else if (CONNECTION.has(name))
      wrong(property, 'not supported: the connection to the API server is that of the node');
    else unknownProperty(directive, property);
  }
  if (namespaces.length > 0 && namespaceSelector !== matchEverything)
    wrong(directive, 'namespaces and namespace_labels cannot both be set');
  return forward.map(
    (domain, index) =>
      new Zone({
        records: context.records,
        domain,
        reverse: index === 0 ? reverse : [],
        fallthrough,
        ttlSeconds,
        pods,
        endpointPodNames: flags.has('endpoint_pod_names'),
        endpoints: !flags.has('noendpoints'),
        ignoreEmptyService: flags.has('empty_service'),
        showsNamespace: ({ metadata }: Namespace) =>
          (namespaces.length === 0 || namespaces.includes(metadata.name)) && namespaceSelector(metadata.labels),
        showsService: ({ metadata }: Service) => selector(metadata.labels),
        addresses: context.addresses,
        clock: context.clock,
      }),
  );
}

function selectorOf(property: Directive): Match {
  try {
    return parseLabelSelector(property.args.join(' '));
  } catch (error) {
    return wrong(property, messageOf(error));
  }
}
