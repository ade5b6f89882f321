/** Directives that turn something of the server on: `errors`, `loadbalance`, `reload` and `loop`. */

import { messageOf } from '../../base/errors.ts';
import { bareAnswer, RCODE, TYPE } from '../message.ts';
import { wireOf } from '../records.ts';
import { durationMs, type Plugin, type Request, takes, wrong } from './plugin.ts';

/** Failures are logged, equal ones together. */
export const errors: Plugin = {
  name: 'errors',
  setup([directive], { settings }) {
    takes(directive!, { args: 1, block: true });
    const [property] = directive!.block;
    if (property) wrong(property, 'not supported: equal errors are always logged together');
    settings.logsErrors = true;
    return {};
  },
};

/** Equal records take turns in coming first. */
export const loadbalance: Plugin = {
  name: 'loadbalance',
  setup([directive], { settings }) {
    takes(directive!, { args: 1 });
    const policy = directive!.args[0] ?? 'round_robin';
    if (policy !== 'round_robin') wrong(directive!, `unknown policy '${policy}'; use 'round_robin'`);
    settings.rotates = true;
    return {};
  },
};

/** Changes of the ConfigMap are followed, at once: interval and jitter are for servers that must look for changes. */
export const reload: Plugin = {
  name: 'reload',
  setup([directive], { settings }) {
    takes(directive!, { args: 2 });
    for (const arg of directive!.args) durationMs(directive!, arg);
    settings.followsChanges = true;
    return {};
  },
};

const SERVFAIL = bareAnswer(RCODE.SERVFAIL);
const TRIES = 15;
const PAUSE_MS = 2000;

/**
 * Sends a question that nobody else knows on its way; when it comes back from outside, what is forwarded comes back here. Then
 * nothing is forwarded any more: CoreDNS ends itself instead, which on a node would take the cluster's own names away too.
 */
export const loop: Plugin = {
  name: 'loop',
  setup([directive], context) {
    takes(directive!, { args: 0 });
    const { random, clock, warn, log } = context;
    const number = (): string => String(Math.floor(random.next() * 2 ** 48));
    const zone = context.zones[0]!;
    const name = wireOf([number(), number(), zone].filter(Boolean).join('.'));
    let found = false;
    const probe: Request = {
      name,
      type: TYPE.HINFO,
      via: 'udp',
      dnssecOk: false,
      checkingDisabled: false,
      recursionDesired: true,
      remote: '',
      depth: 0,
    };
    const start = async (signal: AbortSignal): Promise<void> => {
      for (let attempt = 0; attempt < TRIES && !found && !signal.aborted; attempt++) {
        try {
          await context.resolve(probe);
          return;
        } catch (error) {
          log.debug('loop not looked for yet', { error: messageOf(error) });
        }
        await clock.sleep(PAUSE_MS, signal);
      }
    };
    return {
      start: signal => void start(signal),
      stage(request, next) {
        if (found) return SERVFAIL;
        if (request.name !== name || request.remote === '') return next(request);
        found = true;
        warn(
          'DNSLoop',
          `Loop (${request.remote} -> ${zone || '.'}) detected: what is forwarded comes back to this server, so nothing is forwarded any more. Name real upstream servers: forward . 10.0.0.1`,
        );
        return SERVFAIL;
      },
    };
  },
};
