/** Debian packages that a benchmark needs, installed when it does. */

import { execFileSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';

/** Debian asks it before a package starts its server. */
const POLICY = '/usr/sbin/policy-rc.d';

export function installPackage({
  program,
  name,
  why,
}: {
  readonly program: string;
  readonly name: string;
  readonly why: string;
}): void {
  if (existsSync(program)) return;
  console.log(`Debian package ${name}: ${why}`);
  const install = ['-qq', 'install', '-y', '--no-install-recommends', name];
  // A server among them must not start on the machine.
  const isOurs = !existsSync(POLICY);
  if (isOurs) writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    execFileSync('apt-get', install, { stdio: 'ignore', env });
  } catch {
    execFileSync('apt-get', ['-qq', 'update'], { env });
    execFileSync('apt-get', install, { stdio: 'ignore', env });
  } finally {
    if (isOurs) rmSync(POLICY);
  }
}
