/** HAProxy itself takes every configuration that hostile Ingresses lead to: none can stop the others by being refused. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkPattern } from '../../src/ingress/annotation-values.ts';
import { gatewayDesired } from '../../src/ingress/gateway/gateway-desired.ts';
import { buildGatewayState } from '../../src/ingress/gateway/gateway-model.ts';
import { userList } from '../../src/ingress/haproxy/access.ts';
import { backendLines } from '../../src/ingress/haproxy/backend.ts';
import { renderConfiguration } from '../../src/ingress/haproxy/configuration.ts';
import { desiredMaps } from '../../src/ingress/haproxy/desired-state.ts';
import { HAPROXY, HaproxyProcess } from '../../src/ingress/haproxy/haproxy-process.ts';
import { FILES, listeningSections } from '../../src/ingress/haproxy/listening.ts';
import { LUA_SOURCE } from '../../src/ingress/haproxy/lua.ts';
import { CONFIGURATION } from '../../src/ingress/haproxy/process-files.ts';
import { annotations, hostile, hostileGateways, ingressOf } from '../../src/ingress/hostile-fixture.ts';
import { buildRouteTable } from '../../src/ingress/route-table.ts';

const resources = {
  secret: () => undefined,
  files: () => undefined,
  configMap: () => ({ 'X-Extra': "100% 'there'" }),
};

test('HAProxy takes what hostile Ingresses lead to', { skip: !HaproxyProcess.isInstalled() }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-hostile-'));
  try {
    const path = hostile.map(text => `/${text}`);
    const samples = fc.sample(fc.tuple(annotations, fc.array(path, { minLength: 1, maxLength: 3 })), {
      numRuns: 1500,
      seed: Date.now(),
    });
    const table = buildRouteTable(
      samples.map(([given, paths], at) => ({ ingress: ingressOf(given, `h${at}.test`, paths, `x${at}`) })),
    );
    const routes = [...table.routes.values()];
    assert.ok(routes.length > 500, `${routes.length} routes`);
    const names = new Map(routes.map((route, at) => [route.id, `b${at}`]));
    const backendOf = (route: string) => names.get(route)!;
    const maps = desiredMaps({ table, users: new Map() }, backendOf);
    for (const [map, entries] of maps)
      writeFileSync(join(folder, map), [...entries].map(([key, value]) => `${key} ${value}\n`).join(''));
    writeFileSync(join(folder, FILES.lua), LUA_SOURCE);
    const front = listeningSections({
      httpPort: 1080,
      httpsPort: 1443,
      bindAddress: '127.0.0.1',
      resolves: false,
      nameservers: ['127.0.0.1'],
      usesLua: true,
      features: new Set(['exact', 'patterns', 'wildcards', 'anyHost', 'default', 'redirects', 'fallbacks']),
      clientSeconds: 60,
      proxyProtocol: false,
      trustsForwarded: false,
      canaries: routes.flatMap(route =>
        route.canaries.map(({ rule, route: to }) => ({ of: backendOf(route.id), to: backendOf(to), rule })),
      ),
    }).map(section => ({ ...section, lines: section.lines.filter(line => !line.includes('crt-list')) }));
    writeFileSync(
      join(folder, CONFIGURATION),
      renderConfiguration([
        ...front,
        ...new Set(routes.flatMap(({ settings }) => (settings.basicAuth ? [userList(settings.basicAuth.secret)] : [])))
          .values()
          .map(name => ({ type: 'userlist', name, lines: [] })),
        ...routes.map(route => ({ type: 'backend', name: backendOf(route.id), lines: backendLines(route, resources) })),
      ]),
    );
    execFileSync(HAPROXY, ['-c', '-f', CONFIGURATION], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('HAProxy takes what hostile routes of gateways lead to', { skip: !HaproxyProcess.isInstalled() }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-hostile-'));
  try {
    // One Gateway each, on ports of its own.
    const samples = fc.sample(hostileGateways, { numRuns: 150, seed: Date.now() });
    const frontends = samples.flatMap(({ objects }, at) => {
      const ports = [80, 443, 5000].map((port, n) => [port, 11_000 + 3 * at + n] as const);
      return buildGatewayState(objects, new Map([['default/g', new Map(ports)]])).frontends;
    });
    const desired = gatewayDesired({ frontends, caFiles: new Map(), bindAddress: '127.0.0.1' }, new Map());
    assert.ok(desired.routes.size > 10, `${desired.routes.size} backends`);
    const names = new Map([...desired.routes.keys()].map((id, at) => [id, `b${at}`]));
    const backendOf = (id: string) => names.get(id)!;
    for (const [file, text] of desired.files) writeFileSync(join(folder, file), text);
    for (const [map, entries] of desired.maps(backendOf))
      writeFileSync(join(folder, map), [...entries].map(([key, value]) => `${key} ${value}\n`).join(''));
    const backends = [...desired.routes].map(([id, { lines }]) => ({ type: 'backend', name: backendOf(id), lines }));
    writeFileSync(join(folder, CONFIGURATION), renderConfiguration([...desired.sections(backendOf), ...backends]));
    execFileSync(HAPROXY, ['-c', '-f', CONFIGURATION], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('HAProxy takes every regular expression that is let through', { skip: !HaproxyProcess.isInstalled() }, () => {
  const pieces =
    'a Z 0 - [ [^ ] \\] \\[ \\d \\W \\b \\B \\- ( (?: ) * + ? {2} {1,30} {,3} {0} {999} { } | ^ $ . / \\/ \\\\ = : [: % & a-z , # " \' ` <';
  const word = fc.array(fc.constantFrom(...pieces.split(' ')), { minLength: 1, maxLength: 14 });
  const patterns = fc.sample(
    word.map(parts => parts.join('')),
    { numRuns: 30_000, seed: Date.now() },
  );
  const taken = [...new Set(patterns)].filter(text => {
    try {
      checkPattern(text);
      return true;
    } catch {
      return false;
    }
  });
  assert.ok(taken.length > 2000, `${taken.length} patterns`);
  const folder = mkdtempSync(join(tmpdir(), 'cox-patterns-'));
  try {
    const lines = taken.map((text, at) => ['acl', `t${at}`, 'path', '-m', 'reg', '--', `^(?:${text})$`]);
    const times = ['client', 'server', 'connect'].map(side => ['timeout', side, '1s']);
    writeFileSync(
      join(folder, CONFIGURATION),
      renderConfiguration([
        { type: 'defaults', name: 'd', lines: [['mode', 'http'], ...times] },
        { type: 'frontend', name: 'f', lines: [['bind', '127.0.0.1:1080'], ...lines] },
      ]),
    );
    execFileSync(HAPROXY, ['-c', '-f', CONFIGURATION], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
