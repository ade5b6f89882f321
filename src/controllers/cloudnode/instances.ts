/** A cloud's machines behind a unix socket (`cloudprovider.InstancesV2`): the calls of docs/load-balancer-provider.proto, with the same numbers. */

import type { Node } from '../../api/core/v1.gen.ts';
import { type Call, call } from '../../csi/calls.ts';
import { flag, message, repeated, schema, text, textMap } from '../../csi/protobuf.ts';

const OF_NODE = schema({ nodeJson: text(1) });
const ANSWER = schema({ yes: flag(1) });
export const ADDRESS = schema({ type: text(1), address: text(2) });
const METADATA = schema({
  providerId: text(1),
  instanceType: text(2),
  addresses: repeated(message(3, ADDRESS)),
  zone: text(4),
  region: text(5),
  additionalLabels: textMap(6),
});

const PATH = '/coxswain.cloudprovider.v1.Instances/';

export const INSTANCE_CALLS = {
  instanceExists: call(`${PATH}InstanceExists`, OF_NODE, ANSWER),
  instanceShutdown: call(`${PATH}InstanceShutdown`, OF_NODE, ANSWER),
  instanceMetadata: call(`${PATH}InstanceMetadata`, OF_NODE, METADATA),
} satisfies Record<string, Call<object, object>>;

export const ofNode = (node: Node): { nodeJson: string } => ({ nodeJson: JSON.stringify(node) });
