/**
 * Keeps endpoints where they were: the kernel has them by index, so a list that shifted would be written anew from there on.
 * An endpoint that stays keeps its index; the holes of those that went are filled by new ones, then from the end. Pure.
 */

import type { Endpoint, Frontend, ServiceEntry } from './model.ts';

/** The entry with its endpoints in the order of `before` as far as can be. Equal lists come out in the very same order. */
export function inOrderOf(entry: ServiceEntry, before: ServiceEntry | undefined): ServiceEntry {
  if (!before) return entry;
  const old = new Map(before.frontends.map(frontend => [identityOf(frontend), frontend]));
  // Frontends of one Service mostly share their lists: each is put in order once.
  const done = new Map<readonly Endpoint[], Map<readonly Endpoint[], readonly Endpoint[]>>();
  const ordered = (list: readonly Endpoint[], former: readonly Endpoint[] | undefined): readonly Endpoint[] => {
    if (!former || former.length === 0 || list.length < 2) return list;
    let results = done.get(list);
    if (!results) done.set(list, (results = new Map()));
    let result = results.get(former);
    if (!result) results.set(former, (result = keepPlaces(list, former)));
    return result;
  };
  const frontends = entry.frontends.map((frontend): Frontend => {
    const former = old.get(identityOf(frontend));
    const endpoints = ordered(frontend.endpoints, former?.endpoints);
    const localEndpoints = frontend.localEndpoints && ordered(frontend.localEndpoints, former?.localEndpoints);
    return endpoints === frontend.endpoints && localEndpoints === frontend.localEndpoints
      ? frontend
      : { ...frontend, endpoints, localEndpoints };
  });
  return { ...entry, frontends };
}

function identityOf({ kind, address, family, protocol, port }: Frontend): string {
  return `${kind} ${address ?? family} ${protocol} ${port}`;
}

export function keepPlaces(list: readonly Endpoint[], former: readonly Endpoint[]): readonly Endpoint[] {
  // Nearly all have one port: their addresses as they are make the quickest keys.
  const usual = list[0]?.port;
  const keyOf = ({ ip, port }: Endpoint) => (port === usual ? ip : `${ip} ${port}`);
  const coming = new Map(list.map(endpoint => [keyOf(endpoint), endpoint]));
  const places: (Endpoint | undefined)[] = former.map(endpoint => {
    const key = keyOf(endpoint);
    const same = coming.get(key);
    coming.delete(key);
    return same;
  });
  const fresh = [...coming.values()];
  let at = 0;
  for (let i = 0; i < places.length && at < fresh.length; i++) places[i] ??= fresh[at++];
  places.push(...fresh.slice(at));
  // What stands behind the new end moves into the holes before it.
  const moved = places.slice(list.length).filter(endpoint => endpoint !== undefined);
  return places.slice(0, list.length).map(endpoint => endpoint ?? moved.pop()!);
}
