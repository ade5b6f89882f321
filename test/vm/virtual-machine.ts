/**
 * A machine with Debian's kernel, for what the kernel here lacks: qemu without hardware help boots it in seconds, with this machine's
 * own files as its disk (shared by virtiofs, never written: what it writes stays in its memory). It has no network card.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const repository = join(import.meta.dirname, '..', '..');
const cache = join(repository, '.cache', 'vm');
const VIRTIOFSD = '/usr/lib/qemu/virtiofsd';
const MEMORY_MIB = 2048;
/** What the first program needs; everything later is loaded by name from the package's folder. */
const BOOT_MODULES = ['virtio_pci', 'virtiofs', 'overlay'];
const SEPARATOR = 'output of the machine begins';

/** Set for what runs inside. */
export const isInside = process.env['COX_VIRTUAL_MACHINE'] !== undefined;

const INIT = `#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host /memory /root
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "$module"; done </order
$b mount -t virtiofs -o ro host /host
$b mount -t tmpfs memory /memory; $b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root
for folder in proc sys dev; do $b mount --move /$folder /root/$folder; done
exec $b switch_root /root /bin/sh -c '
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm && mount -t devpts devpts /dev/pts && mount -t tmpfs shm /dev/shm
for word in $(cat /proc/cmdline); do case $word in cox.folder=*) folder=\${word#cox.folder=};; cox.modules=*) modules=\${word#cox.modules=};; esac; done
mkdir -p /lib/modules/$(uname -r) && mount --bind $modules /lib/modules/$(uname -r)
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
export COX_VIRTUAL_MACHINE=1 NO_COLOR=1 HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
stty -F /dev/ttyS0 raw -echo
echo "${SEPARATOR}"
sh $folder/command; echo "exit code $?"
sync; echo o >/proc/sysrq-trigger; sleep 60'
`;

interface Kernel {
  readonly image: string;
  /** Folder that becomes /lib/modules/VERSION. */
  readonly modules: string;
  readonly initialDisk: string;
}

/**
 * V8 and emulation do not quite agree: now and then V8 ends with "Check failed: it->second.Size() > offset" or a segmentation fault, on each
 * model of processor. Where it only interprets that is rarer (3 of 20 runs before, 1 of 25 since), and no slower there.
 */
const NODE_FLAGS = [
  ...['--no-memory-protection-keys', '--single-threaded', '--regexp-interpret-all'],
  ...['--no-sparkplug', '--no-maglev', '--no-turbofan'],
];
/** Three in a row have given up. */
const TRIES = 6;

interface MachineOptions {
  readonly timeoutMs?: number;
  /** Words for the kernel's command line. */
  readonly kernelArguments?: string;
}

/** Runs a file of tests inside, and again when V8 itself gave up in there, which says nothing about the tests. */
export async function runTestsInVirtualMachine(
  file: string,
  options: MachineOptions = {},
): Promise<{ code: number | undefined; output: string }> {
  const command = [process.execPath, ...NODE_FLAGS, '--test-reporter=spec', file];
  for (let tries = 1; ; tries++) {
    const outcome = await runInVirtualMachine(command, options);
    if (tries === TRIES || !/^(# Fatal error in |Segmentation fault$)/m.test(outcome.output)) return outcome;
    process.stdout.write(`V8 gave up in the emulated machine, which is started again:\n${outcome.output}`);
  }
}

/** Runs a program inside and ends the machine. `output` is what it printed; `code` is undefined when it never ended. */
async function runInVirtualMachine(
  command: readonly string[],
  { timeoutMs = 180_000, kernelArguments = '' }: MachineOptions = {},
): Promise<{ code: number | undefined; output: string }> {
  const kernel = prepareKernel();
  const folder = mkdtempSync(join(tmpdir(), 'cox-vm-'));
  writeFileSync(join(folder, 'command'), `cd '${repository}' && exec ${command.map(word => `'${word}'`).join(' ')}\n`);
  const socket = join(folder, 'files.sock');
  const files = spawn(
    VIRTIOFSD,
    [`--socket-path=${socket}`, ...['-o', 'source=/'], ...['-o', 'cache=always'], ...['-o', 'sandbox=chroot']],
    { stdio: 'ignore' },
  );
  let machine: ChildProcess | undefined;
  try {
    for (let tries = 0; !existsSync(socket); tries++) {
      if (tries > 100) throw new Error('virtiofsd does not start');
      await sleep(20);
    }
    const started = spawn('qemu-system-x86_64', qemuArguments(kernel, { folder, socket, kernelArguments }), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    machine = started;
    let printed = '';
    started.stdout.setEncoding('utf8').on('data', bytes => {
      printed += bytes;
    });
    const ended = once(started, 'close');
    await Promise.race([ended, sleep(timeoutMs, undefined, { ref: false })]);
    const text = printed.replaceAll('\r', '');
    const output = text.slice(text.indexOf(SEPARATOR) + SEPARATOR.length).trimStart();
    const code = /^exit code (\d+)$/m.exec(output)?.[1];
    return { code: code === undefined ? undefined : Number(code), output: output.split(/^exit code /m)[0]! };
  } finally {
    machine?.kill('SIGKILL');
    files.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

function qemuArguments(
  kernel: Kernel,
  { folder, socket, kernelArguments }: { folder: string; socket: string; kernelArguments: string },
): string[] {
  const memory = `${MEMORY_MIB}M`;
  return [
    ...['-accel', 'tcg,thread=multi', '-smp', '2', '-m', memory, '-cpu', 'max,pku=off'],
    ...['-object', `memory-backend-memfd,id=memory,size=${memory},share=on`, '-numa', 'node,memdev=memory'],
    ...['-chardev', `socket,id=files,path=${socket}`, '-device', 'vhost-user-fs-pci,chardev=files,tag=host'],
    ...['-kernel', kernel.image, '-initrd', kernel.initialDisk],
    ...[
      '-append',
      `console=ttyS0 quiet panic=-1 cox.folder=${folder} cox.modules=${kernel.modules} ${kernelArguments}`,
    ],
    ...['-nographic', '-no-reboot', '-nic', 'none'],
  ];
}

/** Debian's cloud kernel, fetched as a package and unpacked beside the repository's other caches; not installed. */
function prepareKernel(): Kernel {
  let name = kernelPackage();
  if (!name) {
    execFileSync('apt-get', ['update', '-qq'], { stdio: 'inherit' });
    name = kernelPackage();
  }
  if (!name) throw new Error('Debian has no package linux-image-cloud-amd64 here');
  const version = name.replace('linux-image-', '');
  const unpacked = join(cache, version);
  const kernel = {
    image: join(unpacked, 'boot', `vmlinuz-${version}`),
    modules: join(unpacked, 'lib', 'modules', version),
    initialDisk: join(cache, `${version}.initrd`),
  };
  if (!existsSync(join(kernel.modules, 'modules.dep'))) {
    rmSync(unpacked, { recursive: true, force: true });
    unpackPackages([name], unpacked);
    run('depmod', '-b', unpacked, version);
  }
  writeInitialDisk(kernel, { unpacked, version });
  return kernel;
}

/** Files of Debian packages that are not installed here. */
export function unpackPackages(names: readonly string[], folder: string): void {
  mkdirSync(folder, { recursive: true });
  const download = mkdtempSync(join(tmpdir(), 'cox-packages-'));
  try {
    chmodSync(download, 0o777);
    execFileSync('apt-get', ['download', '-qq', ...names], { cwd: download, stdio: 'inherit' });
    for (const file of readdirSync(download)) run('dpkg', '-x', join(download, file), folder);
  } finally {
    rmSync(download, { recursive: true });
  }
}

function kernelPackage(): string | undefined {
  try {
    return /Depends: (linux-image-\S+)/.exec(run('apt-cache', 'depends', 'linux-image-cloud-amd64'))?.[1];
  } catch {
    return undefined;
  }
}

function writeInitialDisk(kernel: Kernel, { unpacked, version }: { unpacked: string; version: string }): void {
  const folder = mkdtempSync(join(tmpdir(), 'cox-initrd-'));
  try {
    for (const name of ['bin', 'modules']) mkdirSync(join(folder, name));
    copyFileSync('/bin/busybox', join(folder, 'bin', 'busybox'));
    writeFileSync(join(folder, 'init'), INIT, { mode: 0o755 });
    const files = BOOT_MODULES.flatMap(module =>
      run('modprobe', '-d', unpacked, '-S', version, '--show-depends', module)
        .split('\n')
        .flatMap(line => /^insmod (\S+)/.exec(line)?.[1] ?? []),
    );
    const order = [...new Set(files)].map(file => {
      copyFileSync(file, join(folder, 'modules', basename(file)));
      return `/modules/${basename(file)}\n`;
    });
    writeFileSync(join(folder, 'order'), order.join(''));
    // Another run's machine may be reading the old one.
    const fresh = `${kernel.initialDisk}.${process.pid}`;
    execFileSync('sh', ['-c', `find . | cpio --quiet -o -H newc | gzip -1 >'${fresh}'`], { cwd: folder });
    renameSync(fresh, kernel.initialDisk);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
