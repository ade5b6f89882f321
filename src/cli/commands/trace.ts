/** `cox trace`: what would happen to a new connection, step by step. Exit code 0 when it would work, 1 when not. */

import { requireRoot } from '../../app/prerequisites.ts';
import type { TraceResult } from '../../app/trace/step.ts';
import { trace } from '../../app/trace/trace.ts';
import { type Command, printJson, usageError } from '../command.ts';

const MARKS = { ok: '✓', note: '·', warning: '!', failure: '✗' } as const;

export const command: Command = {
  name: 'trace',
  summary: 'tell what would happen to a new connection, and why it fails',
  usage: '[--from POD|NODE|host] [-n NAMESPACE] TARGET',
  takesWords: true,
  options: {
    from: { type: 'string', value: 'WHO', help: 'POD, NAMESPACE/POD, NODE, or host: this machine (default a node)' },
    namespace: {
      type: 'string',
      short: 'n',
      value: 'NAMESPACE',
      help: 'of the pod and of the target',
      default: 'default',
    },
  },
  examples: [
    'cox trace web.shop',
    'cox trace --from client -n shop https://web/path',
    'cox trace svc/web:http -o json',
    'cox trace --from host 127.0.0.1:30080',
  ],
  async run({ options, words, cluster, json }) {
    const [target, ...rest] = words;
    if (!target)
      usageError('trace needs a target: a Service, a name, a URL or an address, such as: cox trace web.shop:80');
    if (rest.length > 0) usageError(`unexpected "${rest[0]}"; see: cox trace --help`);
    requireRoot('trace');
    const result = await trace({
      cluster,
      from: options['from'] as string | undefined,
      target,
      namespace: String(options['namespace']),
    });
    if (json) printJson(result);
    else print(result);
    return result.works ? 0 : 1;
  },
};

function print({ steps, works }: TraceResult): void {
  const width = Math.max(...steps.map(({ name }) => name.length), 0);
  for (const { name, findings } of steps)
    findings.forEach(({ status, text, next }, index) => {
      process.stdout.write(`${(index === 0 ? name : '').padEnd(width)}  ${MARKS[status]} ${text}\n`);
      if (next) process.stdout.write(`${' '.repeat(width)}      → ${next}\n`);
    });
  process.stdout.write(`\n${works ? 'It would work.' : 'It would fail.'}\n`);
}
