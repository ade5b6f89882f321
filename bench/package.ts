/** Debian packages that a benchmark needs, installed when it does. */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

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
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    execFileSync('apt-get', install, { stdio: 'ignore', env });
  } catch {
    execFileSync('apt-get', ['-qq', 'update'], { env });
    execFileSync('apt-get', install, { stdio: 'ignore', env });
  }
}
