/**
 * An SELinux policy for the machine in `virtual-machine.ts`: Debian's own base policy, and the types of containers, which Debian 12 names in
 * its `lxc_contexts` but has not in its policy. Built once, beside the other caches; nothing of it is installed.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unpackPackages } from './virtual-machine.ts';

const folder = join(import.meta.dirname, '..', '..', '.cache', 'vm', 'selinux');
const CONTAINERS = join(import.meta.dirname, 'containers.cil');
const MODULES = ['base', 'unconfined'];
/** What Debian 12's kernel and library both know. */
const POLICY_VERSION = '33';

/** Where the contexts of `/etc/selinux` lie. */
export const selinuxFolder = join(folder, 'etc', 'selinux');

/** Path of the policy in the kernel's form. */
export function buildPolicy(): string {
  const policy = join(folder, 'policy');
  if (existsSync(policy) && statSync(policy).mtimeMs > statSync(CONTAINERS).mtimeMs) return policy;
  unpackPackages(['selinux-policy-default', 'policycoreutils', 'secilc'], folder);
  const parts = MODULES.map(name => {
    const [packed, text] = [join(folder, `${name}.pp`), join(folder, `${name}.cil`)];
    execFileSync('sh', ['-c', `bzcat '${join(folder, 'usr/share/selinux/default', name)}.pp.bz2' >'${packed}'`]);
    execFileSync(join(folder, 'usr/libexec/selinux/hll/pp'), [packed, text], {
      stdio: ['ignore', 'inherit', 'ignore'],
    });
    // Which person has which user of the policy is nothing of the kernel's, and needs modules that are not here.
    writeFileSync(text, readFileSync(text, 'utf8').replaceAll(/^\(selinuxuser.*\n/gm, ''));
    return text;
  });
  const fresh = `${policy}.${process.pid}`;
  const output = ['-o', fresh, '-f', '/dev/null', '-c', POLICY_VERSION];
  execFileSync(join(folder, 'usr/bin/secilc'), ['-N', ...output, ...parts, CONTAINERS]);
  renameSync(fresh, policy);
  return policy;
}
