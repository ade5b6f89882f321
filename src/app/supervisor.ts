/**
 * Keeps the server and each node's agent running with nothing but a shell: a supervisor must be smaller and simpler than
 * what it supervises. A node's shell is also process 1 of the node's PID namespace, so that ending it ends all of the node.
 * Scripts get everything through the environment; nothing is interpolated into them.
 */

import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { identify, type ProcessIdentity } from './cluster-record.ts';

// Restarts at once, but a process that keeps dying young is given a second between tries. The log is kept below 2 × 20 MB.
const KEEP_RUNNING = `
keep_running() {
  while :; do
    started=$(date +%s)
    [ "$(stat -c %s "$COX_LOG_FILE" 2>/dev/null || echo 0)" -gt 20000000 ] && mv -f "$COX_LOG_FILE" "$COX_LOG_FILE.1"
    "$@" </dev/null >>"$COX_LOG_FILE" 2>&1
    code=$?
    [ $code -eq 0 ] && exit 0
    echo "supervisor: $COX_ROLE ended with code $code, starting it again" >>"$COX_LOG_FILE"
    [ $(($(date +%s) - started)) -lt 3 ] && sleep 1 || sleep 0.05
  done
}
`;

// Descriptor 9 is the machine's network namespace: the server makes its sockets on 127.0.0.1 there, and lives in the segment.
const SERVER_SCRIPT = `${KEEP_RUNNING}
exec 9</proc/self/ns/net
keep_running nsenter --net="$COX_NETNS" -- "$COX_RUNTIME" "$COX_ENTRY" server --config "$COX_CONFIG"
`;

const NODE_SCRIPT = `${KEEP_RUNNING}
echo "$COX_NODE" >/proc/sys/kernel/hostname
keep_running "$COX_RUNTIME" "$COX_ENTRY" agent --config "$COX_CONFIG"
`;

export interface SupervisorOptions {
  readonly runtime: string;
  /** The script that Node runs: the bundle's entry. */
  readonly entry: string;
  readonly config: string;
  readonly logFile: string;
  readonly netnsPath: string;
  /** A descriptor that each run of the process has as number 3; the caller closes its own. */
  readonly descriptor?: number;
}

/** Where a process finds `SupervisorOptions.descriptor`. */
export const INHERITED_DESCRIPTOR = 3;

function start(
  command: string,
  args: readonly string[],
  { environment, descriptor }: { environment: Record<string, string>; descriptor?: number | undefined },
): ProcessIdentity {
  const log = openSync(environment['COX_LOG_FILE']!, 'a', 0o600);
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', log, log, ...(descriptor === undefined ? [] : [descriptor])],
    cwd: '/',
    env: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LANG: 'C.UTF-8',
      ...pick('COX_LOG', 'NODE_COMPILE_CACHE'),
      ...environment,
    },
  });
  closeSync(log);
  child.unref();
  return identify(child.pid!);
}

function pick(...names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap(name => (process.env[name] === undefined ? [] : [[name, process.env[name]!]])),
  );
}

function environment(role: string, options: SupervisorOptions): Record<string, string> {
  return {
    COX_ROLE: role,
    COX_RUNTIME: options.runtime,
    COX_ENTRY: options.entry,
    COX_CONFIG: options.config,
    COX_LOG_FILE: options.logFile,
    COX_NETNS: options.netnsPath,
  };
}

export function superviseServer(options: SupervisorOptions): ProcessIdentity {
  return start('/bin/sh', ['-c', SERVER_SCRIPT, 'cox-server'], { environment: environment('server', options) });
}

/** The node's namespaces are made here; the returned process is the one outside whose end the kernel turns into the node's. */
export function superviseNode(node: string, options: SupervisorOptions): ProcessIdentity {
  return start(
    '/usr/bin/nsenter',
    [
      `--net=${options.netnsPath}`,
      '--',
      'unshare',
      '--mount',
      '--propagation',
      'slave',
      '--uts',
      '--ipc',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
      '/bin/sh',
      '-c',
      NODE_SCRIPT,
      `cox-${node}`,
    ],
    { environment: { ...environment('agent', options), COX_NODE: node }, descriptor: options.descriptor },
  );
}
