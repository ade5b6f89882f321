/**
 * The first process of a PID namespace that all containers of a pod share: it holds the namespace and lets orphans go. It is a
 * program of some 170 bytes, alone in a root file system of its own, without a privilege: containers of the pod can look at
 * it, and through /proc into its root, where nothing else is. Invariant: when it ends, the kernel ends all the pod's processes.
 */

import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { identify, type ProcessIdentity } from '../../sys/process.ts';
import { relabel } from '../../sys/selinux.ts';
import type { Labels } from '../selinux.ts';
import type { OciRuntime } from './oci-runtime.ts';
import { idMappings, processLabel, type UserNamespace } from './spec.ts';

const NOBODY = 65535;
const START_MS_MAX = 60_000;

export interface HolderRequest {
  readonly oci: OciRuntime;
  readonly id: string;
  /** Of the sandbox; bundle and root file system are made in it. */
  readonly folder: string;
  readonly cgroupsPath: string;
  readonly namespaces: Readonly<Partial<Record<'network' | 'ipc' | 'uts', string>>>;
  readonly user?: UserNamespace;
  readonly selinux?: Labels;
}

/** Rejects where it cannot run; whoever asked removes the folder then. */
export async function holdProcesses(request: HolderRequest): Promise<ProcessIdentity> {
  const { oci, id, folder, cgroupsPath, namespaces, user, selinux } = request;
  const bundle = join(folder, 'holder');
  const rootfs = join(bundle, 'rootfs');
  for (const point of ['proc', 'dev']) mkdirSync(join(rootfs, point), { recursive: true, mode: 0o755 });
  writeFileSync(join(rootfs, 'pause'), pauseProgram());
  chmodSync(join(rootfs, 'pause'), 0o555);
  if (selinux) await relabel(rootfs, selinux.file);
  const none: string[] = [];
  const spec = {
    ociVersion: '1.0.2',
    process: {
      user: { uid: NOBODY, gid: NOBODY },
      args: ['/pause'],
      env: none,
      cwd: '/',
      capabilities: { bounding: none, effective: none, permitted: none },
      noNewPrivileges: true,
      ...processLabel(selinux),
    },
    root: { path: rootfs, readonly: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'mode=755', 'size=64k'] },
    ],
    linux: {
      cgroupsPath,
      namespaces: [
        { type: 'pid' },
        { type: 'mount' },
        ...Object.entries(namespaces).map(([type, path]) => ({ type, path })),
        ...(user ? [{ type: 'user', path: user.path }] : []),
      ],
      ...idMappings(user),
      ...(selinux ? { mountLabel: selinux.file } : {}),
      resources: { devices: [{ allow: false, access: 'rwm' }] },
    },
  };
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  const pidFile = join(bundle, 'pid');
  const args = ['--root', oci.root, 'run', '--detach', '--bundle', bundle, '--pid-file', pidFile, id];
  await started(oci, args, join(bundle, 'log'));
  const process = identify(Number(readFileSync(pidFile, 'latin1')));
  if (!process) throw new Error('the process that holds the shared PID namespace ended at once');
  return process;
}

// It inherits the streams: a pipe would stay open for as long as it lives.
function started({ name, program }: OciRuntime, args: readonly string[], log: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['--log', log, ...args], { stdio: 'ignore', timeout: START_MS_MAX });
    child.once('error', reject);
    child.once('exit', code => {
      if (code === 0) return resolve();
      const said = existsSync(log) ? (readFileSync(log, 'utf8').trim().split('\n').at(-1) ?? '') : '';
      reject(new Error(`the shared PID namespace could not be made: ${name} ended with ${code}: ${said}`));
    });
  });
}

/**
 * An ELF program: ignore SIGCHLD, so that the kernel drops orphans that end, then wait for ever.
 *   rt_sigaction(SIGCHLD, {SIG_IGN}, 0, 8);  for (;;) pause();
 */
export function pauseProgram(): Buffer {
  const text = PROGRAMS[process.arch];
  if (!text) throw new Error(`shareProcessNamespace is not supported on ${process.arch}`);
  const { machine, code } = text;
  // What follows the code is the sigaction: handler 1 (SIG_IGN), then zeros.
  const body = Buffer.concat([code, Buffer.alloc(8 - (code.length % 8 || 8)), Buffer.from([1]), Buffer.alloc(31)]);
  const headers = Buffer.alloc(HEADER_BYTES);
  headers.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  headers.writeUInt16LE(2, 16);
  headers.writeUInt16LE(machine, 18);
  headers.writeUInt32LE(1, 20);
  headers.writeBigUInt64LE(BASE + BigInt(HEADER_BYTES), 24);
  headers.writeBigUInt64LE(64n, 32);
  headers.writeUInt16LE(64, 52);
  headers.writeUInt16LE(56, 54);
  headers.writeUInt16LE(1, 56);
  // One segment, read and executed.
  headers.writeUInt32LE(1, 64);
  headers.writeUInt32LE(5, 68);
  headers.writeBigUInt64LE(BASE, 80);
  headers.writeBigUInt64LE(BASE, 88);
  const size = BigInt(HEADER_BYTES + body.length);
  headers.writeBigUInt64LE(size, 96);
  headers.writeBigUInt64LE(size, 104);
  headers.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([headers, body]);
}

const BASE = 0x400000n;
const HEADER_BYTES = 64 + 56;
const PROGRAMS: Readonly<Record<string, { readonly machine: number; readonly code: Buffer }>> = {
  x64: {
    machine: 62,
    code: Buffer.from(
      [
        'b80d000000', // mov eax, 13 (rt_sigaction)
        'bf11000000', // mov edi, 17 (SIGCHLD)
        '488d3517000000', // lea rsi, [rip + 23]
        '31d2', // xor edx, edx
        '41ba08000000', // mov r10d, 8
        '0f05', // syscall
        'b822000000', // mov eax, 34 (pause)
        '0f05', // syscall
        'ebf7', // jmp -9
      ].join(''),
      'hex',
    ),
  },
};
