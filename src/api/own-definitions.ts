/**
 * The definitions of custom resources that every cluster begins with. Their schemas are judged by a test and not at each start, which
 * compiling their rules would lengthen by a quarter.
 */

import type { CustomResourceDefinition, JSONSchemaProps } from './apiextensions/v1.gen.ts';
import { GATEWAY_DEFINITIONS } from './gateway/definitions.ts';
import { LOAD_BALANCER_DEFINITIONS } from './loadbalancer/definitions.ts';
import { CLUSTER_POLICY_DEFINITIONS } from './networkpolicy/definitions.ts';

export const OWN_DEFINITIONS: readonly CustomResourceDefinition[] = [
  ...GATEWAY_DEFINITIONS,
  ...LOAD_BALANCER_DEFINITIONS,
  ...CLUSTER_POLICY_DEFINITIONS,
];

/** As we define it; undefined for what is not ours. */
export function ownSchema(definition: string, version: string): JSONSchemaProps | undefined {
  const own = OWN_DEFINITIONS.find(({ metadata }) => metadata.name === definition);
  return own?.spec.versions.find(({ name }) => name === version)?.schema?.openAPIV3Schema;
}
