/**
 * Runs a program that handles a stranger's data for a volume: as nobody, without capabilities or a way to get any, seeing its own
 * processes only, with one folder that it can write. It refuses nothing of the network: what it may reach is the caller's choice.
 */

import { runCommand } from '../../sys/command.ts';

/** nobody; owns the folder while the program runs. */
export const SANDBOX_USER = 65534;

// What lies outside is the node's, and for nobody read-only; the folder is bound to a path that nobody may walk to.
const SCRIPT = `
set -e
exec 3<"$1"
mount -t tmpfs -o mode=0755,size=16m,nosuid,nodev none /tmp
mkdir /tmp/volume /tmp/home
mount --no-canonicalize --bind /proc/self/fd/3 /tmp/volume
exec 3<&-
cd /tmp/volume
shift
exec setpriv --reuid=${SANDBOX_USER} --regid=${SANDBOX_USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
`;

const NAMESPACES = [
  '--mount',
  '--propagation',
  'private',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  '--ipc',
  '--uts',
];

export interface SandboxOptions {
  /** The folder, the program's working directory. */
  readonly volume: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  readonly signal: AbortSignal;
}

/** Standard output; rejects with CommandError. */
export function runInSandbox(options: SandboxOptions, command: readonly string[]): Promise<string> {
  const { volume, env, timeoutMs, signal } = options;
  return runCommand('unshare', [...NAMESPACES, 'sh', '-c', SCRIPT, 'sandbox', volume, ...command], {
    signal,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    env: { HOME: '/tmp/home', ...env },
  });
}
