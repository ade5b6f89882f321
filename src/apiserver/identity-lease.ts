/**
 * Says in the cluster that this API server is there: a Lease in kube-system, held while it runs. Those of servers that have been
 * gone for long are removed.
 */

import { createHash, randomUUID } from 'node:crypto';
import type { Lease } from '../api/coordination/v1.gen.ts';
import { type Clock, formatMicroTime } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { LEASES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';

const NAMESPACE = 'kube-system';
const IDENTITY_LABEL = 'apiserver.kubernetes.io/identity';
const IDENTITY = 'kube-apiserver';
const RENEW_MS = 10_000;
const LEASE_SECONDS = 3600;
const CLEAN_MS = 3_600_000;
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

export interface IdentityLeaseOptions {
  readonly transport: Transport;
  readonly hostname: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** `apiserver-` and what stands for the host, the same after each start. */
export function identityOf(hostname: string): string {
  return `apiserver-${base32(createHash('sha256').update(hostname).digest().subarray(0, 16))}`;
}

/** Runs until the signal aborts; never rejects. */
export async function holdIdentity(options: IdentityLeaseOptions, signal: AbortSignal): Promise<void> {
  const { clock, log } = options;
  const name = identityOf(options.hostname);
  const holder = `${name}_${randomUUID()}`;
  let cleanMs = clock.monotonic();
  while (!signal.aborted) {
    try {
      await renew(options, name, holder);
      if (clock.monotonic() >= cleanMs) {
        await removeExpired(options);
        cleanMs = clock.monotonic() + CLEAN_MS;
      }
    } catch (error) {
      if (!signal.aborted) log.warn('the lease of this API server is not renewed', { name, error: messageOf(error) });
    }
    await clock.sleep(RENEW_MS, signal).catch(() => {});
  }
}

async function renew(
  { transport, hostname, clock }: IdentityLeaseOptions,
  name: string,
  holder: string,
): Promise<void> {
  const target = { of: LEASES, namespace: NAMESPACE, name };
  const renewTime = formatMicroTime(clock.now());
  let current: Lease | undefined;
  try {
    current = (await transport.get(target)) as Lease;
  } catch (error) {
    if (!isReason(error, 'NotFound')) throw error;
  }
  const labels = { ...current?.metadata.labels, [IDENTITY_LABEL]: IDENTITY, 'kubernetes.io/hostname': hostname };
  const spec = { ...current?.spec, holderIdentity: holder, leaseDurationSeconds: LEASE_SECONDS, renewTime };
  if (current) await transport.update(target, { ...current, metadata: { ...current.metadata, labels }, spec } as Lease);
  else
    await transport.create({ of: LEASES, namespace: NAMESPACE }, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace: NAMESPACE, labels },
      spec,
    } as Lease);
}

async function removeExpired({ transport, clock }: IdentityLeaseOptions): Promise<void> {
  const { items } = await transport.list(
    { of: LEASES, namespace: NAMESPACE },
    { labelSelector: `${IDENTITY_LABEL}=${IDENTITY}` },
  );
  for (const { metadata, spec } of items as Lease[]) {
    const endMs = Date.parse(spec?.renewTime ?? '') + (spec?.leaseDurationSeconds ?? 0) * 1000;
    if (endMs >= clock.now()) continue;
    await transport
      .delete({ of: LEASES, namespace: NAMESPACE, name: metadata.name }, { preconditions: { uid: metadata.uid! } })
      .catch(error => {
        if (!isReason(error, 'NotFound', 'Conflict')) throw error;
      });
  }
}

/** RFC 4648 in small letters, without padding. */
function base32(bytes: Uint8Array): string {
  let text = '';
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32[(value >> bits) & 31]!;
    }
    value &= (1 << bits) - 1;
  }
  return bits > 0 ? text + BASE32[(value << (5 - bits)) & 31]! : text;
}
