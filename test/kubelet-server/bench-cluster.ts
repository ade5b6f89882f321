/** A kubelet server over {@link localRuntime}, an API front before it, and a kubeconfig for them: one pod `p`, container `c`. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TokenReview } from '../../src/api/authentication/v1.gen.ts';
import type { SubjectAccessReview } from '../../src/api/authorization/v1.gen.ts';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { kubeletPages } from '../../src/app/component-pages.ts';
import { systemClock } from '../../src/base/clock.ts';
import { notFound } from '../../src/base/errors.ts';
import { createLogger } from '../../src/base/log.ts';
import type { Transport } from '../../src/client/transport.ts';
import { CONFIGURATION_DEFAULT } from '../../src/kubelet/configuration.ts';
import { Access } from '../../src/kubelet/server/access.ts';
import { KubeletServer } from '../../src/kubelet/server/kubelet-server.ts';
import { startApiFront } from './api-front.ts';
import { type LocalRuntime, localRuntime } from './local-runtime.ts';

export interface BenchCluster {
  readonly folder: string;
  readonly kubeconfig: string;
  readonly runtime: LocalRuntime;
  readonly logPath: string;
  readonly kubeletPort: number;
  readonly ca: string;
  /** What the kubelet asked the API server about who asks: a token, or `user verb subresource`. */
  readonly reviews: readonly string[];
  close(): Promise<void>;
}

/** Knows the token `scraper`, who may get metrics, and the user `somebody`'s certificate, who may nothing. */
function reviewer(asked: string[]): Transport {
  return {
    create(_: unknown, { kind, spec }: TokenReview | SubjectAccessReview) {
      if (kind === 'TokenReview') {
        const { token } = spec as TokenReview['spec'];
        asked.push(token!);
        const user = { username: 'scraper', groups: ['system:authenticated'] };
        return Promise.resolve({ status: token === 'scraper' ? { authenticated: true, user } : {} });
      }
      const { user, resourceAttributes: of } = spec as SubjectAccessReview['spec'];
      asked.push(`${user} ${of!.verb} ${of!.subresource}`);
      return Promise.resolve({ status: { allowed: user === 'scraper' && of!.subresource === 'metrics' } });
    },
  } as unknown as Transport;
}

export async function startBenchCluster(options: { readonly tty?: boolean } = {}): Promise<BenchCluster> {
  const folder = mkdtempSync(join(tmpdir(), 'kubelet-server-'));
  const pki = await ensurePki(join(folder, 'pki'), { sans: ['127.0.0.1', 'localhost'] });
  const runtime = localRuntime();
  const logPath = join(folder, '0.log');
  runtime.containers.push({
    id: 'c1',
    sandboxId: 's1',
    podUid: 'uid-1',
    name: 'c',
    attempt: 0,
    imageRef: 'i',
    imageId: 'i',
    state: 'running',
    createdMs: 0,
    startedMs: 0,
    finishedMs: undefined,
    exitCode: undefined,
    signal: undefined,
    oomKilled: false,
    pid: 1,
    logPath,
    labels: {},
  });
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'default', uid: 'uid-1' },
    spec: { nodeName: 'n', containers: [{ name: 'c', image: 'i', stdin: true, tty: options.tty ?? false }] },
    status: {
      phase: 'Running',
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [
        {
          name: 'c',
          ready: true,
          restartCount: 0,
          image: 'i',
          imageID: 'i',
          containerID: 'cox://c1',
          state: { running: { startedAt: '2026-01-01T00:00:00Z' } },
          lastState: {},
        },
      ],
    },
  } as unknown as Pod;
  const reviews: string[] = [];
  const log = createLogger('kubelet', { level: 'warn' });
  const stop = new AbortController();
  const serving = pki.issueServer({ commonName: 'system:node:n', organizations: ['system:nodes'] }, ['127.0.0.1']);
  const server = new KubeletServer({
    address: '127.0.0.1',
    port: 0,
    tls: { key: serving.key, cert: serving.certificate, ca: pki.ca },
    zPages: kubeletPages({ 'hostname-override': 'n' }, systemClock),
    access: new Access({
      ...CONFIGURATION_DEFAULT,
      nodeName: 'n',
      transport: reviewer(reviews),
      clock: systemClock,
      log,
    }),
    clock: systemClock,
    log,
    backend: {
      runtime,
      pods: () => [pod],
      sandboxOf: async () => ({
        id: 's1',
        podUid: 'uid-1',
        namespace: 'default',
        name: 'p',
        attempt: 0,
        ready: true,
        createdMs: 0,
        ips: [],
        netnsPath: undefined,
      }),
      async resolveContainer(_namespace, name, container) {
        if (name !== 'p') throw notFound({ group: '', resource: 'pods' }, name);
        return {
          pod,
          containerName: container ?? 'c',
          id: 'c1',
          state: 'running',
          tty: options.tty ?? false,
          stdin: true,
          logPath: () => logPath,
        };
      },
    },
  });
  const running = server.run(stop.signal);
  const kubeletPort = await server.listening;
  const front = await startApiFront({
    ca: pki.ca,
    serving: pki.server,
    client: pki.kubeletClient,
    kubeletPort,
    pod: () => pod,
  });
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name: 't',
          cluster: {
            server: `https://127.0.0.1:${front.port}`,
            'certificate-authority-data': Buffer.from(pki.ca).toString('base64'),
          },
        },
      ],
      users: [{ name: 't', user: { token: 't' } }],
      contexts: [{ name: 't', context: { cluster: 't', user: 't', namespace: 'default' } }],
      'current-context': 't',
    }),
  );
  return {
    folder,
    kubeconfig,
    runtime,
    logPath,
    kubeletPort,
    ca: pki.ca,
    reviews,
    async close() {
      front.close();
      stop.abort();
      await running;
      for (const child of runtime.running) child.kill('SIGKILL');
      runtime.attached?.kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
