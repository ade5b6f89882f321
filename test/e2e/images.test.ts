/** Images from a registry in the cluster's segment (TLS, passwords), by stock kubectl; and from one on this machine by `cox image pull`. */

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { netnsPath, switchNamespace } from '../../src/app/cluster-record.ts';
import { extractBusybox } from '../kubelet/busybox-image.ts';
import { buildImage, push, Registry, tarOf } from '../kubelet/registry.ts';
import { before, it, type Json, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'images');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const work = mkdtempSync(join(tmpdir(), 'cox-e2e-images-'));
const settings = () => join(cluster.stateDir, 'images', 'images.yaml');
const SEGMENT = '172.30.0.1';
const PORT = 5443;
const remote = `${SEGMENT}:${PORT}`;
let open: Registry;
let closed: Registry;
let busybox: Buffer;

before(
  async () => {
    extractBusybox(join(work, 'busybox'));
    busybox = readFileSync(join(work, 'busybox'));
    const folder = join(work, 'content');
    mkdirSync(folder);
    // Two registries on one content: pushes go to this machine's, nodes pull from the one in the segment.
    open = await Registry.start({ folder });
    const pki = await ensurePki(join(work, 'pki'), { sans: [SEGMENT] });
    const tls = await pki.ensureServer('registry', { commonName: 'registry', organizations: [] }, [SEGMENT]);
    closed = await Registry.start({
      folder,
      tls,
      user: { name: 'ann', password: 'right' },
      address: SEGMENT,
      port: PORT,
      inside: ['nsenter', `--net=${netnsPath(switchNamespace(cluster.name))}`],
    });
    writeFileSync(
      settings(),
      `registries:\n  "${remote}":\n    tls:\n      ca: |\n${pki.ca.replace(/^/gm, '        ')}\n`,
    );
    await push(open.host, 'team/app', ['1', 'shared'], program('app'));
    await push(
      open.host,
      'data',
      ['1'],
      buildImage([tarOf({ 'docs/page': 'from the image', 'bin/tool': '#!/bin/sh\n' })]),
    );
    for (const [name, password] of [
      ['right', 'right'],
      ['wrong', 'guess'],
    ] as const)
      await k(
        'create',
        'secret',
        'docker-registry',
        name,
        `--docker-server=${remote}`,
        '--docker-username=ann',
        `--docker-password=${password}`,
      );
  },
  { timeout: 60_000 },
);
after(async () => {
  await closed?.stop();
  await open?.stop();
  rmSync(settings(), { force: true });
  rmSync(work, { recursive: true, force: true });
});

/** An image whose content no other test has. */
function program(name: string) {
  return buildImage([tarOf({ 'bin/busybox': busybox, [`etc/${name}`]: name })]);
}
const pod = (name: string, image: string, spec: object = {}, container: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image, command: ['/bin/busybox', 'sleep', '3600'], ...container }],
    ...spec,
  },
});
const using = (...secrets: string[]) => ({ imagePullSecrets: secrets.map(name => ({ name })) });
const get = (name: string): Promise<Json> => cluster.json('-n', ns, 'get', 'pod', name);
const ready = (name: string): Promise<string> => k('wait', `pod/${name}`, '--for=condition=Ready', '--timeout=60s');
const waiting = (name: string, reason: RegExp): Promise<{ reason: string; message: string }> =>
  eventually(
    `${name} waits with ${reason}`,
    async () => {
      const state = (await get(name)).status.containerStatuses?.[0]?.state?.waiting;
      return reason.test(state?.reason ?? '') && state;
    },
    { timeoutMs: 30_000 },
  );
const events = async (name: string): Promise<{ type: string; reason: string; message: string }[]> =>
  ((await cluster.json('-n', ns, 'get', 'events', `--field-selector=involvedObject.name=${name}`)) as Json).items;
const hasEvent = (name: string, reason: string, message: RegExp) =>
  eventually(`event ${reason} of ${name}`, async () =>
    (await events(name)).some(one => one.reason === reason && message.test(one.message)),
  );

it('a pod pulls with its secret, one without may not use what was pulled', cluster, async () => {
  await cluster.apply(ns, [pod('with', `${remote}/team/app:1`, using('right'))]);
  await ready('with');
  await hasEvent('with', 'Pulling', new RegExp(`^Pulling image "${remote}/team/app:1"$`));
  await hasEvent(
    'with',
    'Pulled',
    /^Successfully pulled image ".*app:1" in [\d.]+m?s \([\d.]+m?s including waiting\)\. Image size: \d+ bytes\.$/,
  );
  const node = (await get('with')).spec.nodeName;
  await cluster.apply(ns, [pod('again', `${remote}/team/app:1`, { ...using('right'), nodeName: node })]);
  await ready('again');
  await hasEvent('again', 'Pulled', /already present on machine and can be accessed by the pod/);
  await cluster.apply(ns, [
    pod('without', `${remote}/team/app:1`, { nodeName: node }),
    pod('never', `${remote}/team/app:1`, { nodeName: node }, { imagePullPolicy: 'Never' }),
  ]);
  assert.match((await waiting('without', /ErrImagePull|ImagePullBackOff/)).message, /pull access denied/);
  await waiting('never', /ErrImageNeverPull/);
  await eventually(
    'images of the node',
    async () => {
      const { images = [] } = ((await cluster.json('get', 'node', node)) as Json).status;
      const names: string[] = images.flatMap((image: Json) => image.names);
      return (
        names.includes(`${remote}/team/app:1`) && names.some(name => name.startsWith(`${remote}/team/app@sha256:`))
      );
    },
    { timeoutMs: 30_000 },
  );
});

it('the secret of the service account, and a wrong one', cluster, async () => {
  await cluster.apply(ns, [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'puller' }, imagePullSecrets: [{ name: 'right' }] },
  ]);
  await cluster.apply(ns, [
    pod('account', `${remote}/team/app:shared`, { serviceAccountName: 'puller' }),
    pod('denied', `${remote}/team/app:1`, using('wrong', 'missing'), { imagePullPolicy: 'Always' }),
  ]);
  await ready('account');
  const back = await waiting('denied', /ImagePullBackOff/);
  assert.match(
    back.message,
    /^Back-off pulling image ".*app:1": ErrImagePull: failed to pull and unpack image ".*": .*pull access denied/,
  );
  await hasEvent('denied', 'Failed', /^Error: ErrImagePull$/);
  await hasEvent('denied', 'BackOff', /^Back-off pulling image ".*app:1"$/);
  await hasEvent('denied', 'Failed', /^Error: ImagePullBackOff$/);
  await hasEvent('denied', 'FailedToRetrieveImagePullSecret', /\(missing\)/);
});

it('a missing tag is tried again and found; names that cannot be are told', cluster, async () => {
  await cluster.apply(ns, [
    pod('later', `${remote}/team/app:later`, using('right')),
    pod('bad', 'a/UPPER:1'),
    pod('outside', 'registry.invalid/x:1'),
    // Loaded by hand: it serves where no registry can be reached.
    pod('loaded', 'busybox:1.35', {}, { imagePullPolicy: 'Always' }),
  ]);
  assert.match((await waiting('later', /ErrImagePull|ImagePullBackOff/)).message, /app:later: not found$/);
  await push(open.host, 'team/app', ['later'], program('later'));
  await waiting('bad', /InvalidImageName/);
  assert.match(
    (await waiting('outside', /ErrImagePull|ImagePullBackOff/)).message,
    /registry\.invalid is not inside the cluster.*cox image pull.*outside: true/,
  );
  await ready('later');
  await ready('loaded');
});

it('an image as a volume: read-only, nothing runs from it, a part of it', cluster, async () => {
  await cluster.apply(ns, [
    pod(
      'volume',
      'busybox:1.35',
      {
        ...using('right'),
        volumes: [{ name: 'data', image: { reference: `${remote}/data:1`, pullPolicy: 'IfNotPresent' } }],
      },
      {
        imagePullPolicy: 'IfNotPresent',
        command: ['sleep', '3600'],
        volumeMounts: [
          { name: 'data', mountPath: '/data' },
          { name: 'data', mountPath: '/docs', subPath: 'docs' },
        ],
      },
    ),
  ]);
  await ready('volume');
  assert.equal(await k('exec', 'volume', '--', 'cat', '/data/docs/page', '/docs/page'), 'from the imagefrom the image');
  const tried = async (...command: string[]) =>
    (await cluster.tryKubectl('-n', ns, 'exec', 'volume', '--', ...command)).stderr;
  assert.match(await tried('touch', '/data/new'), /Read-only file system/);
  assert.match(await tried('touch', '/docs/new'), /Read-only file system/);
  assert.match(await tried('/data/bin/tool'), /ermission denied/);

  await k('delete', 'pod', 'volume', '--wait=true');
  await cluster.apply(ns, [
    pod(
      'volume-missing',
      'busybox:1.35',
      { ...using('right'), volumes: [{ name: 'data', image: { reference: `${remote}/data:2` } }] },
      { imagePullPolicy: 'IfNotPresent', volumeMounts: [{ name: 'data', mountPath: '/data' }] },
    ),
  ]);
  assert.match((await waiting('volume-missing', /ImagePullBackOff/)).message, /data:2: not found$/);
});

it('cox image pull, list and rm', cluster, async () => {
  await push(open.host, 'tool', ['1'], program('tool'));
  const name = `${open.host}/tool:1`;
  assert.match(await cluster.cox(['image', 'pull', name]), /tool:1: sha256:[0-9a-f]{64}, [\d.]+ MiB/);
  assert.match(await cluster.cox(['image', 'list']), new RegExp(name));
  assert.match((await cluster.tryCox(['image', 'pull', `${open.host}/tool:2`])).stderr, /tool:2: not found/);
  await cluster.apply(ns, [pod('tool', name)]);
  await ready('tool');
  await cluster.cox(['image', 'rm', name.replace(':1', `@${(await digestsOf(name))[0]}`)]);
  assert.match(
    (await cluster.tryCox(['image', 'rm', name])).stderr,
    /in use by 1 container; delete the pods that use it first/,
  );
  await k('delete', 'pod', 'tool', '--wait=true');
  await eventually('image removed', async () => (await cluster.tryCox(['image', 'rm', name])).code === 0);
  assert.match((await cluster.tryCox(['image', 'rm', name])).stderr, /has no image/);
});

async function digestsOf(name: string): Promise<string[]> {
  const images = JSON.parse(await cluster.cox(['image', 'list', '-o', 'json'])) as { references: string[] }[];
  return images
    .filter(({ references }) => references.includes(name))
    .flatMap(({ references }) => references.flatMap(one => one.split('@')[1] ?? []));
}
