/** For tests: an API server with all of `createSecurity` around it, over a store in memory and bootstrapped. */

import { systemClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { Transport } from '../client/transport.ts';
import { openMemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';
import { LOOPBACK_USER } from './request.ts';
import { createSecurity, type Security, type SecurityOptions } from './security.ts';
import { ApiServer } from './server.ts';

export interface SecuredServer {
  readonly server: ApiServer;
  readonly security: Security;
  /** In process, with all rights. */
  readonly root: Transport;
}

export async function openSecured({
  store = openMemoryStore(),
  tracer,
  ...options
}: Pick<SecurityOptions, 'pki'> &
  Partial<SecurityOptions> & { readonly store?: Store; readonly tracer?: Tracer }): Promise<SecuredServer> {
  const late: { server?: ApiServer } = {};
  const security = createSecurity({
    reader: () => late.server!.reader,
    transport: () => late.server!.transport(LOOPBACK_USER),
    serviceCidrs: ['10.96.0.0/12'],
    nodePortRange: { first: 30000, last: 32767 },
    advertise: { address: '172.30.0.1', port: 6443 },
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    ...options,
  });
  const server = await ApiServer.open({ store, ...security, tracer });
  late.server = server;
  await security.bootstrap();
  return { server, security, root: server.transport(LOOPBACK_USER) };
}
