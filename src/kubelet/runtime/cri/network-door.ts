/**
 * How a container runtime comes to the node's pod network: a CNI plugin of a few lines of shell, which leaves a request in a folder
 * and waits at a pipe for what this process answers. Invariant: a request is answered once, or dropped with the plugin that made it
 * (containerd ends a plugin whose caller is gone). The plugin never frees an address: the kubelet does, when it stops the sandbox.
 */

import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import { insideNamespace, raiseLoopback } from '../../../sys/namespaces.ts';
import type { PodNetwork } from '../../runtime.ts';

const PLUGIN = 'cox-pod-network';
/** containerd calls it for every sandbox before what is configured. Here the node's own does both. */
const LOOPBACK_PLUGIN = 'loopback';
const CNI_VERSION = '1.0.0';
/** CNI's own codes end at 99. */
const CODE_FAILED = 100;

export interface CniFolders {
  /** Where the runtime looks for plugins, and for what to call. */
  readonly plugins: string;
  readonly configurations: string;
  readonly requests: string;
}

/** The pipe is opened for both ways, so that opening it never waits and what is written before it is read stays. */
const script = (requests: string) => `#!/bin/sh
set -e
case "$CNI_COMMAND$CNI_IFNAME" in
ADDlo)
  echo '{"cniVersion":"${CNI_VERSION}","interfaces":[{"name":"lo"}],"ips":[{"address":"127.0.0.1/8","interface":0}]}'
  exit ;;
esac
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion":"${CNI_VERSION}","supportedVersions":["0.3.1","0.4.0","${CNI_VERSION}"]}' ;;
ADD)
  reply='${requests}'/"$CNI_CONTAINERID.reply"
  rm -f "$reply" && mkfifo -m 600 "$reply"
  trap 'rm -f "$reply"' EXIT
  exec 3<>"$reply"
  printf '%s\\n%s\\n' "$CNI_NETNS" "$CNI_ARGS" >'${requests}'/"$CNI_CONTAINERID.new"
  mv '${requests}'/"$CNI_CONTAINERID.new" '${requests}'/"$CNI_CONTAINERID.request"
  IFS= read -r answer <&3
  printf '%s\\n' "$answer"
  case "$answer" in '{"code"'*) exit 1 ;; esac ;;
esac
`;

export function writePlugin({ plugins, configurations, requests }: CniFolders): void {
  for (const folder of [plugins, configurations, requests]) mkdirSync(folder, { recursive: true, mode: 0o700 });
  for (const plugin of [LOOPBACK_PLUGIN, PLUGIN])
    writeFileSync(join(plugins, plugin), script(requests), { mode: 0o755 });
  writeFileSync(
    join(configurations, '10-cox.conflist'),
    JSON.stringify({ cniVersion: CNI_VERSION, name: 'cox', plugins: [{ type: PLUGIN }] }),
  );
}

export interface DoorOptions {
  readonly requests: string;
  readonly network: PodNetwork;
  readonly log: Logger;
}

/** Answers until the signal aborts. */
export function openDoor({ requests, network, log }: DoorOptions, signal: AbortSignal): void {
  const answer = async (file: string) => {
    const id = file.slice(0, -'.request'.length);
    let lines: string[];
    try {
      lines = readFileSync(join(requests, file), 'utf8').split('\n');
      rmSync(join(requests, file));
    } catch {
      // Answered already.
      return;
    }
    const [netnsPath = '', words = ''] = lines;
    const word = (name: string) => new RegExp(`(?:^|;)${name}=([^;]*)`).exec(words)?.[1] ?? '';
    const pod = { uid: word('K8S_POD_UID'), namespace: word('K8S_POD_NAMESPACE'), name: word('K8S_POD_NAME') };
    let reply: object;
    try {
      insideNamespace('net', netnsPath, raiseLoopback);
      const { ips } = await network.attach({ ...pod, netnsPath });
      reply = resultOf(ips, netnsPath);
    } catch (error) {
      reply = { code: CODE_FAILED, cniVersion: CNI_VERSION, msg: messageOf(error) };
    }
    try {
      const pipe = openSync(join(requests, `${id}.reply`), constants.O_WRONLY | constants.O_NONBLOCK);
      writeFileSync(pipe, `${JSON.stringify(reply)}\n`);
      closeSync(pipe);
    } catch (error) {
      log.debug('whoever asked for a pod network is gone', { pod: pod.name, error: messageOf(error) });
    }
  };
  const watcher = watch(requests, (_, file) => {
    if (file?.endsWith('.request')) void answer(file);
  });
  signal.addEventListener('abort', () => watcher.close(), { once: true });
  for (const file of readdirSync(requests)) if (file.endsWith('.request')) void answer(file);
}

function resultOf(ips: readonly string[], sandbox: string): object {
  return {
    cniVersion: CNI_VERSION,
    interfaces: [{ name: 'eth0', sandbox }],
    ips: ips.map(ip => ({ address: `${ip}/${ip.includes(':') ? 128 : 32}`, interface: 0 })),
  };
}
