/**
 * TLS bootstrap of a kubelet: with the little that a bootstrap kubeconfig allows (mostly a token) it asks the cluster's signer for a
 * client certificate of its own and writes the kubeconfig that uses it. Invariant: a kubeconfig that still serves is left alone.
 */

import { X509Certificate } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { failure, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { readKubeconfig } from '../client/kubeconfig.ts';
import { connectByKubeconfig } from './kubeconfig-transport.ts';
import { certificatePath, nodeCertificates } from './node-certificate.ts';

export interface BootstrapOptions {
  readonly bootstrapKubeconfig: string;
  /** Is written. */
  readonly kubeconfig: string;
  /** Where certificate and key are kept. */
  readonly folder: string;
  readonly nodeName: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Resolves when the kubeconfig is there; waits as long as nobody approves. Rejects with BadRequest where the bootstrap kubeconfig is wrong. */
export async function bootstrapKubelet(options: BootstrapOptions): Promise<void> {
  const { bootstrapKubeconfig, kubeconfig, folder, clock, log } = options;
  if (await stillServes(kubeconfig, clock)) return;
  log.info('asking for a client certificate', { as: bootstrapKubeconfig });
  const { transport } = await connectByKubeconfig(bootstrapKubeconfig, { userAgent: 'kubelet/v1.36.0 cox' });
  const stop = new AbortController();
  try {
    const pairs = nodeCertificates({ ...options, purpose: 'client', names: [], transport }, stop.signal);
    await pairs.next();
    await pairs.return(undefined);
  } finally {
    stop.abort();
    transport.close();
  }
  const { server, ca, servername, insecure } = await readKubeconfig(bootstrapKubeconfig).catch(error => {
    throw failure(400, 'BadRequest', `--bootstrap-kubeconfig ${bootstrapKubeconfig}: ${messageOf(error)}`);
  });
  const pem = resolve(certificatePath({ purpose: 'client', folder }));
  const named = { cluster: 'default-cluster', user: 'default-auth' };
  const written = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: named.cluster,
        cluster: {
          server,
          ...(ca ? { 'certificate-authority-data': Buffer.from(ca).toString('base64') } : {}),
          ...(servername ? { 'tls-server-name': servername } : {}),
          ...(insecure ? { 'insecure-skip-tls-verify': true } : {}),
        },
      },
    ],
    users: [{ name: named.user, user: { 'client-certificate': pem, 'client-key': pem } }],
    contexts: [{ name: 'default-context', context: named }],
    'current-context': 'default-context',
  };
  writeFileSync(`${kubeconfig}.new`, `${JSON.stringify(written, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${kubeconfig}.new`, kubeconfig);
}

/** As upstream: there, readable, and its certificate not over. */
async function stillServes(kubeconfig: string, clock: Clock): Promise<boolean> {
  try {
    const { cert } = await readKubeconfig(kubeconfig);
    return cert === undefined || new X509Certificate(cert).validToDate.getTime() > clock.now();
  } catch {
    return false;
  }
}
