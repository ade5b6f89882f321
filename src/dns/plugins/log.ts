/** `log`: one line a query into the node's log, in CoreDNS's common format. */

import { type Answer, FLAG, RCODE, TYPE } from '../message.ts';
import { textOf } from '../records.ts';
import { type Plugin, type Request, takes, unknownProperty, withinAny, wrong, zonesOr } from './plugin.ts';

const CLASSES = ['all', 'success', 'denial', 'error'] as const;
type ReplyClass = (typeof CLASSES)[number];

export const log: Plugin = {
  name: 'log',
  repeats: true,
  setup(directives, context) {
    const rules = directives.map(directive => {
      if (directive.args.some(arg => arg.includes('{')))
        wrong(directive, 'formats other than the common one are not supported');
      const wanted = new Set<ReplyClass>();
      for (const property of directive.block) {
        if (property.name !== 'class') unknownProperty(directive, property);
        for (const arg of property.args) {
          if (!CLASSES.includes(arg as ReplyClass))
            wrong(property, `unknown class '${arg}'; there are: ${CLASSES.join(' ')}`);
          wanted.add(arg as ReplyClass);
        }
      }
      takes(directive, { args: 32, block: true });
      return {
        covers: withinAny(zonesOr(directive, directive.args, context)),
        shows: (kind: ReplyClass) => wanted.size === 0 || wanted.has('all') || wanted.has(kind),
      };
    });
    const { clock } = context;
    return {
      stage(request, next) {
        const rule = rules.find(({ covers }) => covers(request.name));
        if (!rule) return next(request);
        const startMs = clock.monotonic();
        const tell = (answer: Answer): Answer => {
          if (rule.shows(classOf(answer))) context.log.info(lineOf(request, answer, clock.monotonic() - startMs));
          return answer;
        };
        const reply = next(request);
        return reply instanceof Promise ? reply.then(tell) : tell(reply);
      },
    };
  },
};

function classOf({ rcode, answers }: Answer): ReplyClass {
  if (rcode === RCODE.NXDOMAIN || (rcode === RCODE.NOERROR && answers === 0)) return 'denial';
  return rcode === RCODE.NOERROR ? 'success' : 'error';
}

const wordOf = (table: Readonly<Record<string, number>>, value: number): string =>
  Object.entries(table).find(([, number]) => number === value)?.[0] ?? String(value);

function lineOf(request: Request, answer: Answer, ms: number): string {
  const flags = ['qr', ...(['AA', 'TC', 'RA', 'AD'] as const).filter(flag => (answer.flags ?? 0) & FLAG[flag])];
  const type = wordOf(TYPE, request.type);
  const name = `${textOf(request.name)}.`;
  const header = request.name.length + 16;
  return `${request.remote || '-'} "${type} IN ${name} ${request.via} ${header} ${request.dnssecOk}" ${wordOf(RCODE, answer.rcode)} ${flags.join(',').toLowerCase()} ${header + answer.body.length} ${(ms / 1000).toFixed(9)}s`;
}
