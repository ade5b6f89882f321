/**
 * The projected source `podCertificate`: keys of pods, and the certificates that signers gave for them (KEP-4317). A key is made on the node
 * and never leaves it; it is kept in memory only, so that an agent that starts anew asks anew. A certificate is asked for again once its
 * signer says so, and serves until the next one is there. Refuses for good what a signer denied or failed.
 */

import { API_VERSION, outcomeOf } from '../../api/certificates/pod-certificate-request.ts';
import type { PodCertificateRequest } from '../../api/certificates/v1beta1.gen.ts';
import type { Node, PodCertificateProjection, ServiceAccount } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { Informer } from '../../client/informer.ts';
import { NODES, POD_CERTIFICATE_REQUESTS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { type CertificateKey, newCertificateKey } from './certificate-key.ts';
import { type Files, privateFile } from './projection.ts';
import type { VolumeContext } from './volume.ts';

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
/** Spreads the requests of pods that were started together. */
const JITTER_MS = 5 * 60_000;
const OVERDUE_MS = 10 * 60_000;
const SYNC_MS_MAX = 5000;
const GIVE_UP_MS = 10 * 60_000;
const NOT_SERVED =
  'the API server does not serve PodCertificateRequests, unless it is started with runtime-config=certificates.k8s.io/v1beta1=true';

interface Asked {
  readonly name: string;
  readonly key: CertificateKey;
  readonly giveUpMs: number;
}

interface Issued {
  readonly keyPem: string;
  readonly chainPem: string;
  readonly refreshMs: number;
  readonly endMs: number;
  readonly warned: Set<string>;
}

/** One source of one volume of one pod. */
interface Credential {
  asked: Asked | undefined;
  issued: Issued | undefined;
  /** Why there will never be a certificate. */
  refused: string | undefined;
}

export interface PodCertificatesOptions {
  readonly transport: Transport;
  readonly nodeName: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export class PodCertificates {
  readonly #options: PodCertificatesOptions;
  /** By pod, then by volume and place in it. */
  readonly #pods = new Map<string, { changed: () => void; readonly credentials: Map<string, Credential> }>();
  #requests: Informer<PodCertificateRequest> | undefined;

  constructor(options: PodCertificatesOptions) {
    this.#options = options;
  }

  forget(podUid: string): void {
    this.#pods.delete(podUid);
  }

  /** The files of a source. Rejects while there is no certificate yet; `context.changed` is called once there is one. */
  async files(
    source: PodCertificateProjection,
    { index, mode }: { readonly index: number; readonly mode: number },
    context: VolumeContext,
  ): Promise<Files> {
    const uid = context.pod.metadata.uid!;
    const pod = this.#pods.get(uid) ?? { changed: context.changed, credentials: new Map<string, Credential>() };
    pod.changed = context.changed;
    this.#pods.set(uid, pod);
    const key = `${context.use.volume}/${index}`;
    const credential = pod.credentials.get(key) ?? { asked: undefined, issued: undefined, refused: undefined };
    pod.credentials.set(key, credential);
    await this.#advance(credential, source, context);
    if (credential.refused !== undefined) throw new Error(credential.refused);
    if (!credential.issued) throw new Error('credential bundle is not issued yet');
    const { keyPem, chainPem } = credential.issued;
    const files: Files = new Map();
    const write = (path: string | undefined, text: string) =>
      path && files.set(path, privateFile(Buffer.from(text), mode, context.pod));
    write(source.credentialBundlePath, keyPem + chainPem);
    write(source.keyPath, keyPem);
    write(source.certificateChainPath, chainPem);
    return files;
  }

  async #advance(credential: Credential, source: PodCertificateProjection, context: VolumeContext): Promise<void> {
    if (credential.refused !== undefined) return;
    const nowMs = this.#options.clock.now();
    if (credential.issued) warn(credential.issued, nowMs, context);
    if (credential.asked) this.#settle(credential, credential.asked, context);
    else if (!credential.issued || nowMs >= credential.issued.refreshMs)
      credential.asked = await this.#ask(source, context);
  }

  #settle(credential: Credential, asked: Asked, context: VolumeContext): void {
    const { namespace } = context.pod.metadata;
    const request = this.#requests?.get(`${namespace}/${asked.name}`);
    // Somebody took it away before the watch began, and nobody would tell.
    if (!request && this.#options.clock.now() > asked.giveUpMs) credential.asked = undefined;
    const outcome = outcomeOf(request?.status);
    if (!request || !outcome) return;
    const { type, reason, message } = outcome;
    if (type === 'Issued') {
      const { certificateChain = '', beginRefreshAt = '', notAfter = '' } = request.status!;
      credential.asked = undefined;
      credential.issued = {
        keyPem: asked.key.pem,
        chainPem: (certificateChain.match(CERTIFICATE) ?? []).map(block => `${block}\n`).join(''),
        refreshMs: Date.parse(beginRefreshAt) + this.#options.random.next() * JITTER_MS,
        endMs: Date.parse(notAfter),
        warned: new Set(),
      };
      return;
    }
    const words = `reason=${JSON.stringify(reason)}, message=${JSON.stringify(message)}`;
    const ended = type === 'Denied' ? 'denied' : 'failed';
    credential.refused = `PodCertificateRequest was permanently ${ended}: ${words}`;
    context.event(
      'Warning',
      type,
      `PodCertificateRequest ${namespace}/${asked.name} ${type === 'Denied' ? 'was denied' : 'failed'}, ${words}`,
    );
  }

  async #ask(source: PodCertificateProjection, context: VolumeContext): Promise<Asked> {
    const { pod } = context;
    const { namespace, name: podName, uid: podUID } = pod.metadata;
    const { nodeName, transport } = this.#options;
    const serviceAccountName = pod.spec.serviceAccountName || 'default';
    const [account, node, key] = await Promise.all([
      context.fetch<ServiceAccount>(SERVICE_ACCOUNTS, { namespace: namespace!, name: serviceAccountName }),
      context.fetch<Node>(NODES, { name: nodeName }),
      newCertificateKey(source.keyType),
    ]);
    if (!account || !node)
      throw new Error(`${account ? `node ${nodeName}` : `serviceaccount ${serviceAccountName}`} not found`);
    this.#follow();
    const body: PodCertificateRequest = {
      apiVersion: API_VERSION,
      kind: 'PodCertificateRequest',
      metadata: {
        name: '',
        generateName: 'req-',
        ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: podName, uid: podUID! }],
      },
      spec: {
        signerName: source.signerName,
        podName,
        podUID: podUID!,
        serviceAccountName,
        serviceAccountUID: account.metadata.uid!,
        nodeName,
        nodeUID: node.metadata.uid!,
        stubPKCS10Request: key.request,
        ...(source.maxExpirationSeconds === undefined ? {} : { maxExpirationSeconds: source.maxExpirationSeconds }),
        ...(source.userAnnotations ? { unverifiedUserAnnotations: source.userAnnotations } : {}),
      },
    };
    try {
      const made = await transport.create({ of: POD_CERTIFICATE_REQUESTS, namespace: namespace! }, body);
      // From now on every change of it is seen.
      const enough = new AbortController();
      const either = AbortSignal.any([context.signal, enough.signal]);
      await Promise.race([this.#requests!.synced, this.#options.clock.sleep(SYNC_MS_MAX, either)]);
      enough.abort();
      return { name: made.metadata.name, key, giveUpMs: this.#options.clock.now() + GIVE_UP_MS };
    } catch (error) {
      throw isReason(error, 'NotFound') ? new Error(NOT_SERVED) : error;
    }
  }

  /** One watch for all pods of the node, from the first one that asks. */
  #follow(): void {
    if (this.#requests) return;
    const { transport, nodeName, clock, log, signal } = this.#options;
    this.#requests = new Informer<PodCertificateRequest>({
      transport,
      of: POD_CERTIFICATE_REQUESTS,
      fieldSelector: `spec.nodeName=${nodeName}`,
      clock,
      log,
    });
    this.#requests.onChange(({ object, old }) => {
      if (object && !outcomeOf(object.status)) return;
      const pod = this.#pods.get((object ?? old)!.spec.podUID);
      // What was taken away unanswered is asked for anew.
      if (!object)
        for (const credential of pod?.credentials.values() ?? [])
          if (credential.asked?.name === old!.metadata.name) credential.asked = undefined;
      pod?.changed();
    });
    void this.#requests.run(signal);
  }
}

function warn({ refreshMs, endMs, warned }: Issued, nowMs: number, context: VolumeContext): void {
  const once = (reason: string, message: string) => {
    if (warned.has(reason)) return;
    warned.add(reason);
    context.event('Warning', reason, message);
  };
  if (nowMs > refreshMs + OVERDUE_MS) once('CertificateOverdueForRefresh', 'PodCertificate refresh overdue');
  if (nowMs > endMs) once('CertificateExpired', 'PodCertificate expired');
}
