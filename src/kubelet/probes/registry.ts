/** Every kind of probe. */

import { execProber } from './exec.ts';
import { grpcProber } from './grpc.ts';
import { httpProber } from './http.ts';
import type { Prober } from './prober.ts';
import { tcpProber } from './tcp.ts';

export const PROBERS: readonly Prober<never>[] = [execProber, httpProber, tcpProber, grpcProber];
