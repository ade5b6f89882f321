#!/usr/bin/env node
/**
 * Entry point of `cox`: finds the command, runs it, turns an expected failure into one line and exit code 1.
 * Commands are loaded on demand, so that none pays for what another needs.
 */

import { ApiError, messageOf } from '../base/errors.ts';
import type { Command } from './command.ts';

/** In the order help shows them. */
const COMMANDS: readonly { readonly name: string; readonly load: () => Promise<{ command: Command }> }[] = [
  { name: 'up', load: () => import('./commands/up.ts') },
  { name: 'down', load: () => import('./commands/down.ts') },
  { name: 'status', load: () => import('./commands/status.ts') },
  { name: 'list', load: () => import('./commands/list.ts') },
  { name: 'kubeconfig', load: () => import('./commands/kubeconfig.ts') },
  { name: 'kubectl', load: () => import('./commands/kubectl.ts') },
  { name: 'image load', load: () => import('./commands/image-load.ts') },
  { name: 'image pull', load: () => import('./commands/image-pull.ts') },
  { name: 'image list', load: () => import('./commands/image-list.ts') },
  { name: 'image rm', load: () => import('./commands/image-rm.ts') },
  { name: 'node exec', load: () => import('./commands/node-exec.ts') },
  { name: 'trace', load: () => import('./commands/trace.ts') },
  { name: 'kubelet', load: () => import('./commands/kubelet.ts') },
  { name: 'proxy', load: () => import('./commands/proxy.ts') },
  { name: 'dns', load: () => import('./commands/dns.ts') },
  { name: 'version', load: () => import('./commands/version.ts') },
  { name: 'server', load: () => import('./commands/server.ts') },
  { name: 'agent', load: () => import('./commands/agent.ts') },
  { name: 'image-puller', load: () => import('./commands/image-puller.ts') },
  { name: 'relay', load: () => import('./commands/relay.ts') },
  { name: 'image-relay', load: () => import('./commands/image-relay.ts') },
];

/** Of all commands, or of those that begin with one word: `image`. */
async function help(group = ''): Promise<string> {
  const entries = COMMANDS.filter(({ name }) => !group || name.startsWith(`${group} `));
  const commands = await Promise.all(entries.map(async ({ load }) => (await load()).command));
  const lines = commands
    .filter(command => !command.hidden)
    .map(command => `  ${command.name.padEnd(12)} ${command.summary}`);
  const title = group ? '' : 'Coxswain: a real Kubernetes on this machine, without Docker or a virtual machine.\n\n';
  return `${title}Usage: cox ${group || 'COMMAND'} ${group ? 'COMMAND ' : ''}[options]\n\nCommands:\n${lines.join('\n')}\n\nEvery command explains itself with --help.\n`;
}

async function main(args: readonly string[]): Promise<number> {
  const words = args.filter(arg => !arg.startsWith('-'));
  if (args.length === 0 || words[0] === 'help' || (args[0]!.startsWith('-') && /^(-h|--help)$/.test(args[0]!))) {
    process.stdout.write(await help());
    return 0;
  }
  if (args[0] === '--version') args = ['version', ...args.slice(1)];
  const entry = COMMANDS.find(({ name }) => name.split(' ').every((word, at) => args[at] === word));
  if (!entry) {
    const group = COMMANDS.filter(({ name }) => name.startsWith(`${args[0]} `)).map(({ name }) => name);
    if (group.length > 0 && /^(-h|--help)$/.test(args[1] ?? '')) {
      process.stdout.write(await help(args[0]));
      return 0;
    }
    const hint = group.length ? `use one of: ${group.map(name => `cox ${name}`).join(', ')}` : 'see: cox --help';
    process.stderr.write(`cox: unknown command "${args.slice(0, group.length ? 2 : 1).join(' ')}"; ${hint}\n`);
    return 2;
  }
  const { command } = await entry.load();
  const { parseInvocation } = await import('./command.ts');
  const invocation = parseInvocation(command, args.slice(entry.name.split(' ').length));
  return invocation ? ((await command.run(invocation)) ?? 0) : 0;
}

// A reader that has seen enough (`cox status | head`) is no failure, and what a command does goes on.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(
    `cox: ${error instanceof ApiError ? error.message : error instanceof Error ? (error.stack ?? messageOf(error)) : messageOf(error)}\n`,
  );
  process.exitCode = error instanceof ApiError && error.code === 400 ? 2 : 1;
}
