/**
 * `template`: answers made of the question by text with gaps. Of Go's template language it knows what its documentation
 * shows: `{{ .Name }}`, `.Zone`, `.Type`, `.Class`, `.Remote`, `.Group.NAME`, `index .Match N` and `parseInt VALUE BASE BITS`.
 */

import { messageOf } from '../../base/errors.ts';
import type { Directive } from '../corefile.ts';
import { bareAnswer, FLAG, RCODE, type Section, TYPE } from '../message.ts';
import { parseRecord } from '../record-text.ts';
import { answerOf, textOf } from '../records.ts';
import {
  fallthroughOf,
  type Plugin,
  type PluginContext,
  type Reply,
  type Request,
  unknownProperty,
  withinAny,
  wrong,
  zonesOr,
} from './plugin.ts';

interface Data {
  readonly zone: string;
  readonly name: string;
  readonly type: string;
  readonly remote: string;
  readonly match: RegExpExecArray;
}
type Fill = (data: Data) => string;

interface Template {
  readonly type: number;
  readonly zones: readonly { readonly text: string; readonly holds: (name: string) => boolean }[];
  readonly patterns: readonly RegExp[];
  readonly records: readonly { readonly section: Section; readonly fill: Fill }[];
  readonly rcode: number;
  readonly fallsThrough: (name: string) => boolean;
}

const SERVFAIL = bareAnswer(RCODE.SERVFAIL);

export const template: Plugin = {
  name: 'template',
  repeats: true,
  setup(directives, context) {
    const templates = directives.map(directive => templateOf(directive, context));
    return {
      stage(request, next) {
        for (const one of templates) {
          const reply = fill(one, request, context);
          if (reply !== undefined) return reply;
        }
        return next(request);
      },
    };
  },
};

function fill(template: Template, request: Request, { log }: PluginContext): Reply | undefined {
  const { type, zones, patterns, records, rcode, fallsThrough } = template;
  const zone = zones.find(({ holds }) => holds(request.name));
  if (!zone || (type !== TYPE.ANY && type !== request.type)) return undefined;
  const name = `${textOf(request.name)}.`;
  const match = patterns.map(pattern => pattern.exec(name)).find(found => found !== null);
  if (!match) return fallsThrough(request.name) ? undefined : SERVFAIL;
  const kind = Object.entries(TYPE).find(([, number]) => number === request.type)?.[0] ?? `TYPE${request.type}`;
  const data = { zone: `${zone.text}.`, name, type: kind, remote: request.remote, match };
  try {
    const filled = records.map(record => parseRecord(record.section, record.fill(data)));
    return answerOf(request.name, filled, { rcode, flags: FLAG.AA });
  } catch (error) {
    log.warn('template gave no record', { name, error: messageOf(error) });
    return SERVFAIL;
  }
}

function templateOf(directive: Directive, context: PluginContext): Template {
  const [ofClass, ofType, ...zoneTexts] = directive.args;
  if (ofClass === undefined || !/^(IN|ANY)$/i.test(ofClass))
    wrong(directive, `invalid class '${ofClass ?? ''}'; use IN or ANY`);
  const type = (TYPE as Readonly<Record<string, number>>)[ofType?.toUpperCase() ?? ''];
  if (type === undefined) wrong(directive, `invalid RR type '${ofType ?? ''}'`);
  const patterns: RegExp[] = [];
  const records: { section: Section; fill: Fill }[] = [];
  let rcode: number = RCODE.NOERROR;
  let fallthrough: readonly string[] = [];
  for (const property of directive.block) {
    const { name, args } = property;
    if (name === 'match') for (const arg of args) patterns.push(patternOf(property, arg));
    else if (name === 'answer' || name === 'authority' || name === 'additional')
      for (const arg of args) records.push({ section: name, fill: fillOf(property, arg) });
    else if (name === 'rcode') {
      const code = (RCODE as Readonly<Record<string, number>>)[args[0]?.toUpperCase() ?? ''];
      if (code === undefined) wrong(property, `invalid rcode '${args[0] ?? ''}'`);
      rcode = code;
    } else if (name === 'fallthrough') fallthrough = fallthroughOf(property);
    else unknownProperty(directive, property);
  }
  return {
    type,
    zones: zonesOr(directive, zoneTexts, context).map(text => ({ text, holds: withinAny([text]) })),
    patterns: patterns.length > 0 ? patterns : [/.*/],
    records,
    rcode,
    fallsThrough: withinAny(fallthrough),
  };
}

function patternOf(property: Directive, text: string): RegExp {
  try {
    return new RegExp(text.replaceAll('(?P<', '(?<'));
  } catch (error) {
    return wrong(property, `could not parse regex: ${messageOf(error)}`);
  }
}

function fillOf(property: Directive, text: string): Fill {
  const parts = text.split(/(\{\{.*?\}\})/).map(part => {
    const inside = /^\{\{-?\s*(.*?)\s*-?\}\}$/.exec(part)?.[1];
    return inside === undefined ? () => part : fillExpression(property, inside);
  });
  return data => parts.map(part => part(data)).join('');
}

function fillExpression(property: Directive, expression: string): Fill {
  const simple: Readonly<Record<string, Fill>> = {
    '.Name': data => data.name,
    '.Zone': data => data.zone,
    '.Type': data => data.type,
    '.Class': () => 'IN',
    '.Remote': data => data.remote,
  };
  const known = simple[expression];
  if (known) return known;
  const group = /^\.Group\.(\w+)$/.exec(expression)?.[1];
  if (group !== undefined) return data => data.match.groups?.[group] ?? '';
  const index = /^index \.Match (\d+)$/.exec(expression)?.[1];
  if (index !== undefined) return data => data.match[Number(index)] ?? '';
  const [, value, base] = /^parseInt (\.Group\.\w+|\.Name) (\d+) \d+$/.exec(expression) ?? [];
  if (value !== undefined && Number(base) >= 2 && Number(base) <= 36) {
    const inner = fillExpression(property, value);
    return data => String(Number.parseInt(inner(data), Number(base)));
  }
  return wrong(property, `template: '{{ ${expression} }}' is not supported`);
}
