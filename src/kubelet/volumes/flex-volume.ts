/**
 * flexVolume: volumes that a program on the node brings, called as upstream calls it (`init`, `attach`, `waitforattach`, `mountdevice`, `mount`
 * and the way back), its answers in JSON. The program is `VENDOR~DRIVER/DRIVER` below the configuration's `volumePluginDir`. Where it attaches,
 * this node attaches and detaches: no controller has the program. Invariants: a record beside the mount says what to undo before the program
 * hears of the volume; one call at a time about a volume; the program's output is never more than a message.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FlexPersistentVolumeSource, FlexVolumeSource, Secret } from '../../api/core/v1.gen.ts';
import { SECRETS } from '../../client/resources.ts';
import { CommandError, runCommand } from '../../sys/command.ts';
import { bindMount, isMountPoint, unmount } from '../../sys/mount.ts';
import { Turns } from './turns.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from './volume.ts';
import type { VolumeNode } from './volume-node.ts';

type Source = FlexPersistentVolumeSource | FlexVolumeSource;

interface Answer {
  readonly status?: string;
  readonly message?: string;
  readonly device?: string;
  readonly capabilities?: Partial<Capabilities>;
}
interface Capabilities {
  readonly attach: boolean;
  readonly fsGroup: boolean;
  readonly selinuxRelabel: boolean;
}
const CAPABILITIES_DEFAULT: Capabilities = { attach: true, fsGroup: true, selinuxRelabel: true };

interface FlexRecord {
  readonly program: string;
  /** Of the persistent volume, or of the pod's. */
  readonly volume: string;
  readonly isAttached: boolean;
  /** Where the device is mounted for the node; only where it is attached. */
  readonly deviceMount: string;
}

const RECORD = 'flex.json';
const turns = new Turns();
/** By program, as it was when it was asked. */
const known = new Map<string, { readonly mtimeMs: number; readonly capabilities: Capabilities }>();

const mountPath = ({ path }: Pick<VolumeTarget, 'path'>) => join(path, 'mount');

function programOf(driver: string, folder: string): string {
  const parts = driver.split('/');
  if (parts.some(part => !/^[\w][\w.-]*$/.test(part)) || parts.length > 2)
    throw new Error(`invalid name of a FlexVolume driver: ${JSON.stringify(driver)}`);
  const program = join(folder, parts.join('~'), parts.at(-1)!);
  if (!existsSync(program))
    throw new Error(
      `no FlexVolume driver ${JSON.stringify(driver)} on this node: its program would be ${program}; better use the CSI driver of the storage`,
    );
  return program;
}

/** The answer; undefined when the program does not have the call. Rejects with what it says. */
async function call(program: string, args: readonly string[], signal?: AbortSignal): Promise<Answer | undefined> {
  let output: string;
  try {
    output = await runCommand(program, args, signal ? { signal } : {});
  } catch (error) {
    // Secrets stand in the arguments: they are not repeated.
    if (!(error instanceof CommandError) || error.code === undefined) {
      const { message } = error as Error;
      throw new Error(`FlexVolume driver ${program} ${args[0]}: ${message.slice(message.lastIndexOf(': ') + 2)}`);
    }
    output = error.stdout;
  }
  let answer: Answer;
  try {
    answer = JSON.parse(output) as Answer;
  } catch {
    throw new Error(
      `FlexVolume driver ${program} ${args[0]} did not answer in JSON: ${JSON.stringify(output.slice(0, 200))}`,
    );
  }
  if (answer.status === 'Not supported') return undefined;
  if (answer.status !== 'Success')
    throw new Error(`${args[0]} command failed, status: ${answer.status}, reason: ${answer.message ?? ''}`);
  return answer;
}

async function capabilitiesOf(program: string): Promise<Capabilities> {
  const { mtimeMs } = statSync(program);
  const before = known.get(program);
  if (before?.mtimeMs === mtimeMs) return before.capabilities;
  const answer = await call(program, ['init']);
  const capabilities = { ...CAPABILITIES_DEFAULT, ...answer?.capabilities };
  known.set(program, { mtimeMs, capabilities });
  return capabilities;
}

async function optionsOf(source: Source, volume: string, context: VolumeContext): Promise<Record<string, string>> {
  const { pod, use } = context;
  const reference = source.secretRef as { name?: string; namespace?: string } | undefined;
  const secrets: [string, string][] = [];
  if (reference?.name) {
    const namespace = reference.namespace || pod.metadata.namespace!;
    const secret = await context.fetch<Secret>(SECRETS, { namespace, name: reference.name });
    if (!secret) throw new Error(`Couldn't get secret ${namespace}/${reference.name}: it does not exist`);
    for (const [key, value] of Object.entries(secret.data ?? {})) secrets.push([`kubernetes.io/secret/${key}`, value]);
  }
  const { fsGroup } = pod.spec.securityContext ?? {};
  return {
    'kubernetes.io/fsType': source.fsType ?? '',
    'kubernetes.io/readwrite': use.isReadOnly ? 'ro' : 'rw',
    'kubernetes.io/pvOrVolumeName': volume,
    'kubernetes.io/pod.name': pod.metadata.name,
    'kubernetes.io/pod.namespace': pod.metadata.namespace!,
    'kubernetes.io/pod.uid': pod.metadata.uid!,
    'kubernetes.io/serviceAccount.name': pod.spec.serviceAccountName ?? 'default',
    ...(fsGroup === undefined ? {} : { 'kubernetes.io/mounterArgs.FsGroup': String(fsGroup) }),
    ...Object.fromEntries(secrets),
    ...source.options,
  };
}

export const flexVolume: VolumePlugin<Source> = {
  source: 'flexVolume',
  folder: 'kubernetes.io~flexvolume',
  isRelabelled: true,
  ownsFiles: ({ driver }, { volumes }) =>
    known.get(programOf(driver, volumes.flexDir))?.capabilities.fsGroup ?? CAPABILITIES_DEFAULT.fsGroup,
  contentPath: (_, target) => mountPath(target),
  async mount(source, target, context) {
    const { volumes, signal } = context;
    const path = mountPath(target);
    if (isMountPoint(path)) return;
    const program = programOf(source.driver, volumes.flexDir);
    const { attach: isAttached } = await capabilitiesOf(program);
    const deviceMount = join(
      volumes.rootDir,
      'plugins',
      'kubernetes.io~flexvolume',
      source.driver,
      'mounts',
      target.name,
    );
    const record: FlexRecord = { program, volume: target.name, isAttached, deviceMount };
    const options = JSON.stringify(await optionsOf(source, target.name, context));
    await turns.run(deviceMount, async () => {
      mkdirSync(path, { recursive: true, mode: 0o750 });
      writeFileSync(join(target.path, RECORD), JSON.stringify(record), { mode: 0o600 });
      if (isAttached && !isMountPoint(deviceMount)) {
        const attached = await call(program, ['attach', options, volumes.name], signal);
        const device = attached?.device ?? '';
        const waited = await call(program, ['waitforattach', device, options], signal);
        mkdirSync(deviceMount, { recursive: true, mode: 0o750 });
        await call(program, ['mountdevice', deviceMount, waited?.device ?? device, options], signal);
      }
      try {
        if (await call(program, ['mount', path, options], signal)) return;
      } catch (error) {
        // Nothing to undo, then: `unmount` is not called.
        if (!isMountPoint(path) && readdirSync(path).length === 0) rmdirSync(path);
        throw error;
      }
      if (!isMountPoint(deviceMount))
        throw new Error(`FlexVolume driver ${source.driver} has neither "mount" nor "mountdevice"`);
      bindMount(deviceMount, path);
    });
  },
  async unmount(target, volumes) {
    const path = mountPath(target);
    const record = readRecord(target.path);
    const undo = async () => {
      if (record && existsSync(path) && !(await call(record.program, ['unmount', path]))) unmount(path);
      if (isMountPoint(path)) throw new Error(`the FlexVolume driver left ${path} mounted`);
      if (existsSync(path)) rmdirSync(path);
      if (record?.isAttached && !isUsedElsewhere(target, record, volumes)) await release(record, volumes);
      rmSync(join(target.path, RECORD), { force: true });
      if (existsSync(target.path)) rmdirSync(target.path);
    };
    await (record ? turns.run(record.deviceMount, undo) : undo());
  },
};

async function release({ program, volume, deviceMount }: FlexRecord, { name }: VolumeNode): Promise<void> {
  if (existsSync(deviceMount)) {
    if (!(await call(program, ['unmountdevice', deviceMount]))) unmount(deviceMount);
    if (isMountPoint(deviceMount)) throw new Error(`the FlexVolume driver left ${deviceMount} mounted`);
    if (existsSync(deviceMount)) rmdirSync(deviceMount);
  }
  await call(program, ['detach', volume, name]);
}

function readRecord(folder: string): FlexRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, RECORD), 'utf8')) as FlexRecord;
  } catch {
    return undefined;
  }
}

function isUsedElsewhere(target: VolumeTarget, { deviceMount }: FlexRecord, { rootDir }: VolumeNode): boolean {
  const pods = join(rootDir, 'pods');
  return readdirSync(pods).some(uid => {
    const folder = join(pods, uid, 'volumes', flexVolume.folder);
    return (existsSync(folder) ? readdirSync(folder) : []).some(
      name => join(folder, name) !== target.path && readRecord(join(folder, name))?.deviceMount === deviceMount,
    );
  });
}
