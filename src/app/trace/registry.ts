/** The steps of a trace, in the order in which a connection meets them. `step.ts` says how to add one. */

import type { Step } from './step.ts';
import { endpoints } from './steps/endpoints.ts';
import { gateway } from './steps/gateway.ts';
import { ingress } from './steps/ingress.ts';
import { kernel } from './steps/kernel.ts';
import { listener } from './steps/listener.ts';
import { name } from './steps/name.ts';
import { nat } from './steps/nat.ts';
import { origin } from './steps/origin.ts';
import { policy } from './steps/policy.ts';
import { service } from './steps/service.ts';
import { way } from './steps/way.ts';

export const STEPS: readonly Step[] = [
  origin,
  ingress,
  gateway,
  name,
  service,
  endpoints,
  kernel,
  nat,
  policy,
  way,
  listener,
];
