/** Directives that serve something over HTTP: `health`, `ready` and `prometheus`. */

import type { Directive } from '../corefile.ts';
import { durationMs, type HttpReply, type Plugin, takes, unknownProperty, wrong } from './plugin.ts';

function addressOf(directive: Directive, fallback: string): string {
  const text = directive.args[0] ?? fallback;
  const port = /^(?:\[[0-9a-f:]+\]|[\w.-]*):(\d{1,5})$/i.exec(text)?.[1];
  if (port === undefined || Number(port) > 65_535) wrong(directive, `'${text}' is not an address such as ':8080'`);
  return text;
}

/** Answers as soon as the process does. */
export const health: Plugin = {
  name: 'health',
  setup([directive], { settings }) {
    takes(directive!, { args: 1, block: true });
    for (const property of directive!.block) {
      if (property.name !== 'lameduck') unknownProperty(directive!, property);
      settings.lameDuckMs = durationMs(property, property.args[0]);
    }
    const reply = (): HttpReply => ({ code: 200, text: 'OK' });
    settings.endpoints.push({ address: addressOf(directive!, ':8080'), path: '/health', reply });
    return {};
  },
};

/** Answers when the cluster is known. */
export const ready: Plugin = {
  name: 'ready',
  setup([directive], { settings, records }) {
    takes(directive!, { args: 1 });
    const reply = (): HttpReply => (records.hasSynced ? { code: 200, text: 'OK' } : { code: 503, text: 'kubernetes' });
    settings.endpoints.push({ address: addressOf(directive!, ':8181'), path: '/ready', reply });
    return {};
  },
};

export const prometheus: Plugin = {
  name: 'prometheus',
  setup([directive], { settings, renderMetrics }) {
    takes(directive!, { args: 1 });
    const reply = (): HttpReply => ({
      code: 200,
      text: renderMetrics(),
      type: 'text/plain; version=0.0.4; charset=utf-8',
    });
    settings.endpoints.push({ address: addressOf(directive!, 'localhost:9153'), path: '/metrics', reply });
    return {};
  },
};
