/**
 * A node's DNS server, configured as people know it: by key `Corefile` of ConfigMap `kube-system/coredns`. Files below
 * /etc/coredns/ are the other keys of that ConfigMap, where CoreDNS has it mounted. Changes take effect with the watch event;
 * without a ConfigMap it answers by kubeadm's Corefile. A faulty one is told by an event about the ConfigMap.
 */

import { readFileSync } from 'node:fs';
import type { ConfigMap } from '../api/core/v1.gen.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer } from '../client/informer.ts';
import { CONFIG_MAPS } from '../client/resources.ts';
import type { InformerSource } from './cluster-records.ts';
import { defaultCorefile } from './configuration.ts';
import { DnsServer, type DnsServerOptions } from './server.ts';

export const COREFILE_CONFIG_MAP = { namespace: 'kube-system', name: 'coredns' } as const;
const FOLDER = '/etc/coredns/';

export interface ClusterDnsOptions {
  readonly informers: InformerSource;
  readonly events: EventRecorder;
  readonly clusterDomain: string;
  readonly listen: DnsServerOptions['listen'];
  readonly listener?: DnsServerOptions['listener'];
  readonly drains?: boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class ClusterDns {
  readonly server: DnsServer;
  readonly #configMaps: Informer<ConfigMap>;

  constructor(options: ClusterDnsOptions) {
    const { informers, events, clusterDomain, listen, listener, drains, log, clock } = options;
    const { namespace, name } = COREFILE_CONFIG_MAP;
    this.#configMaps = informers.get<ConfigMap>(CONFIG_MAPS, { namespace, fieldSelector: `metadata.name=${name}` });
    const current = (): ConfigMap | undefined => this.#configMaps.get(`${namespace}/${name}`);
    this.server = new DnsServer({
      informers,
      clusterDomain,
      listen,
      readFile: path => (path.startsWith(FOLDER) ? current()?.data?.[path.slice(FOLDER.length)] : readNodeFile(path)),
      onWarning: (reason, message) => {
        const about = current();
        if (about) events.event(about, 'Warning', reason, message);
      },
      ...(listener ? { listener } : {}),
      ...(drains ? { drains } : {}),
      log,
      ...(clock ? { clock } : {}),
    });
    let inForce = JSON.stringify({ Corefile: defaultCorefile(clusterDomain) });
    this.#configMaps.onChange(({ object }) => {
      const data = object?.data ?? {};
      const corefile = data['Corefile'] ?? defaultCorefile(clusterDomain);
      const wanted = JSON.stringify({ ...data, Corefile: corefile });
      if (wanted === inForce) return;
      inForce = wanted;
      if (this.server.configure(corefile) === undefined && object)
        events.event(object, 'Normal', 'CorefileReloaded', 'The Corefile is in force');
    });
  }

  run(signal: AbortSignal): Promise<void> {
    return this.server.run(signal);
  }
}

function readNodeFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
