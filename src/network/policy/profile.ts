/** Pods of this node that are under the same policies in one direction, and what these allow. Its owner is `policy-model.ts`. */

import type { Ranges } from './address-blocks.ts';
import type { NamedPorts, Ranked } from './decision.ts';
import type { Group } from './peer-classes.ts';
import type { PortSet } from './port-set.ts';
import type { BlockPeer, Direction } from './statement.ts';

export interface Profile {
  key: string;
  readonly direction: Direction;
  policies: readonly string[];
  names: NamedPorts;
  isolated: boolean;
  statements: readonly Ranked[];
  /** Statements (by index) that speak of a group's members. */
  groups: ReadonlyMap<Group, readonly number[]>;
  everyone: readonly number[];
  blocks: readonly { readonly block: BlockPeer; readonly at: number }[];
  /** Statements that take something away from pods by their labels: they hold for addresses of pods that are not known yet. */
  perhaps: readonly number[];
  namesUsed: readonly string[];
  fallback: PortSet;
  /** Addresses of its pods. */
  readonly members: Set<string>;
  /** Where it differs from `fallback`: by class, and by range of addresses. */
  readonly byClass: Map<number, PortSet>;
  byBlock: Ranges;
  /** Of the way to its pods' own node: by range, and for the rest of its addresses where that is not everything. */
  toNode: Ranges;
  nodeFallback: PortSet | undefined;
  /** Decisions by the groups that a peer is in; as old as `statements`. */
  readonly memo: Map<string, PortSet>;
}

export function newProfile(identity: Pick<Profile, 'key' | 'direction' | 'policies' | 'names'>): Profile {
  return {
    ...identity,
    isolated: false,
    statements: [],
    groups: new Map(),
    everyone: [],
    blocks: [],
    perhaps: [],
    namesUsed: [],
    fallback: [],
    members: new Set(),
    byClass: new Map(),
    byBlock: new Map(),
    toNode: new Map(),
    nodeFallback: undefined,
    memo: new Map(),
  };
}
