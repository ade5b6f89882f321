/** Runs this very test file again inside network and mount namespaces of its own, with an address that is not loopback. */

import { execFileSync, spawnSync } from 'node:child_process';

/** The one address of the namespace that `inOwnNamespaces` makes. */
export const ADDRESS = '10.99.0.1';
const MARK = 'COX_TEST_OWN_NAMESPACES';

export const isInside = process.env[MARK] !== undefined;
export const root = process.getuid?.() === 0;

/** True inside. Outside, runs the file inside, passes its report on and answers with its exit code. */
export function inOwnNamespaces(file: string): boolean {
  if (isInside) {
    execFileSync('ip', ['link', 'set', 'lo', 'up']);
    execFileSync('ip', ['address', 'add', `${ADDRESS}/32`, 'dev', 'lo']);
    return true;
  }
  const namespaces = [
    '--net',
    '--mount',
    '--propagation',
    'private',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
  ];
  const { status } = spawnSync('unshare', [...namespaces, process.execPath, '--test', file], {
    stdio: 'inherit',
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, [MARK]: '1' },
  });
  if (status !== 0) process.exitCode = status ?? 1;
  return false;
}
