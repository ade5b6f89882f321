/** Network sysctls of one namespace. It refuses the calling thread's own: a namespace must be named. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { inNamespace, type NetnsRef } from './netns.ts';

function pathOf(key: string): string {
  return `/proc/sys/net/${key}`;
}

/** Writes `/proc/sys/net/KEY` inside the namespace for each entry: `{ 'ipv4/ip_forward': '1' }`. Throws when one is missing. */
export function writeSysctls(namespace: NetnsRef, values: Readonly<Record<string, string>>): void {
  inNamespace(namespace, () => {
    for (const [key, value] of Object.entries(values)) writeFileSync(pathOf(key), value);
  });
}

/** As `writeSysctls`, but keys that this kernel does not have are skipped, and a value already right is not written. */
export function ensureSysctls(namespace: NetnsRef, values: Readonly<Record<string, string>>): void {
  inNamespace(namespace, () => {
    for (const [key, value] of Object.entries(values)) {
      if (existsSync(pathOf(key)) && readFileSync(pathOf(key), 'utf8').trim() !== value)
        writeFileSync(pathOf(key), value);
    }
  });
}

/** Undefined when this kernel does not have it. */
export function readOptionalSysctl(namespace: NetnsRef, key: string): string | undefined {
  return inNamespace(namespace, () => (existsSync(pathOf(key)) ? readFileSync(pathOf(key), 'utf8').trim() : undefined));
}

export function readSysctl(namespace: NetnsRef, key: string): string {
  return inNamespace(namespace, () => readFileSync(pathOf(key), 'utf8').trim());
}
