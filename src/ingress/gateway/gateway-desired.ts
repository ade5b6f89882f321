/** What gateways come to as the wishes of a HAProxy: the backends of their routes, their frontends, certificates and maps. */

import type { Section } from '../haproxy/configuration.ts';
import type { BackendOf, CertificateEntry, Desired } from '../haproxy/desired.ts';
import { processSections } from '../haproxy/process-sections.ts';
import { backendShape, mirrorKey } from './backend-shape.ts';
import { DEADLINE_LUA, DEADLINE_LUA_SOURCE } from './deadline.ts';
import {
  certificateFile,
  decrypting,
  listOf,
  NOT_FOUND,
  type Rendered,
  ROUTES_MAP,
  renderFrontend,
} from './frontend-sections.ts';
import type { Frontend } from './frontends.ts';
import { ANY } from './hostnames.ts';
import { MIRROR_LUA, MIRROR_LUA_SOURCE, MIRROR_MAP, mirrorFrontend } from './mirror.ts';
import type { Backend, Choice } from './route-rules.ts';

const CLIENT_SECONDS = 60;

export interface GatewayWishes {
  readonly frontends: readonly Frontend[];
  readonly caFiles: ReadonlyMap<string, string>;
  readonly bindAddress: string;
}

/** Every backend that something leads to, by its id. */
export function backendsOf(frontends: readonly Frontend[]): Map<string, Backend> {
  const found = new Map<string, Backend>();
  const add = (backend: Backend): void => {
    found.set(backend.id, backend);
    for (const step of backend.steps) if (step.do === 'mirror') add(step.to);
  };
  const addAll = (choices: readonly Choice[]) => choices.forEach(({ backend }) => void add(backend));
  const walk = (frontend: Frontend): void => {
    if (frontend.kind === 'tcp') return addAll(frontend.choices);
    if (frontend.kind === 'http') {
      for (const { exact, prefixes } of frontend.domains)
        for (const list of [...exact.values(), ...prefixes.values()]) for (const { choices } of list) addAll(choices);
      return;
    }
    for (const way of frontend.hosts.values()) if (way.to === 'backends') addAll(way.choices);
    for (const choices of frontend.terminated?.hosts.values() ?? []) addAll(choices);
    if (frontend.https) walk(frontend.https);
  };
  frontends.forEach(walk);
  return found;
}

export function backendLabel({ kind, route, service }: Backend): string {
  return `${kind} ${route}${service ? ` ${service.name}:${service.port}` : ''}`;
}

export function gatewayDesired(
  { frontends, caFiles, bindAddress }: GatewayWishes,
  servers: ReadonlyMap<string, readonly string[]>,
): Desired {
  const backends = backendsOf(frontends);
  const mirrored = [...backends.values()].flatMap(({ steps }) =>
    steps.flatMap(step => (step.do === 'mirror' ? [step.to] : [])),
  );
  const certificates = new Map<string, CertificateEntry>();
  const lists: string[] = [];
  for (const { id, certificates: shown } of frontends.flatMap(decrypting)) {
    lists.push(listOf(id));
    for (const [at, { hostname, pem }] of shown.entries())
      certificates.set(certificateFile(id, hostname, at), {
        list: listOf(id),
        pem,
        ...(hostname === ANY ? {} : { filter: hostname }),
      });
  }
  const render = (backendOf: BackendOf): Rendered[] =>
    frontends.map(frontend => renderFrontend(frontend, { bindAddress, backendOf }));
  const usesMirrors = mirrored.length > 0;
  const usesDeadlines = [...backends.values()].some(({ deadlineMs }) => deadlineMs !== undefined);
  const noBackend: BackendOf = () => NOT_FOUND;
  return {
    routes: new Map([...backends].map(([id, backend]) => [id, backendShape(backend)])),
    servers,
    certificates,
    certificateLists: lists,
    files: new Map([
      ...caFiles,
      ...(usesMirrors ? [[MIRROR_LUA, MIRROR_LUA_SOURCE] as const] : []),
      ...(usesDeadlines ? [[DEADLINE_LUA, DEADLINE_LUA_SOURCE] as const] : []),
    ]),
    sections: backendOf => [
      ...processSections({
        nameservers: [],
        resolves: false,
        clientSeconds: CLIENT_SECONDS,
        ...(usesMirrors ? { lua: MIRROR_LUA } : {}),
        ...(usesDeadlines ? { luaFilters: DEADLINE_LUA } : {}),
      }),
      ...(usesMirrors ? [mirrorFrontend()] : []),
      ...render(backendOf).flatMap(({ sections }) => sections),
      notFound(),
    ],
    maps: backendOf => {
      const labels = new Map([...backends.values()].map(each => [backendOf(each.id), backendLabel(each)]));
      const maps = new Map<string, ReadonlyMap<string, string>>([[ROUTES_MAP, labels]]);
      for (const rendered of render(backendOf)) for (const [file, map] of rendered.maps) maps.set(file, map);
      if (usesMirrors)
        maps.set(MIRROR_MAP, new Map(mirrored.map(backend => [mirrorKey(backend), backendOf(backend.id)])));
      return maps;
    },
    orderedMaps: new Set(render(noBackend).flatMap(({ ordered }) => ordered)),
  };
}

function notFound(): Section {
  return {
    type: 'backend',
    name: NOT_FOUND,
    lines: [
      [
        ...'http-request return status 404 content-type text/plain string'.split(' '),
        'no rule of a route matches this host and path',
      ],
    ],
  };
}
