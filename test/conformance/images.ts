/**
 * The images that upstream's conformance suite names, made from what `build.sh` compiled and Debian's packages under
 * upstream's tags. What a test looks at is there (programs, ports, exit codes); the rest of upstream's image is not.
 *
 *   node26 test/conformance/images.ts BUILT_DIR SOURCE_DIR OUT_DIR
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dockerArchive } from '../../tools/images/archive.ts';
import { copyWithLibraries, fetchPackages } from '../../tools/images/debian.ts';
import { FileTree } from '../../tools/images/file-tree.ts';
import { BASE_PACKAGES, RECIPES, type Recipe } from '../../tools/images/recipes.ts';

const [built, source, out] = process.argv.slice(2) as [string, string, string];
const cache = join(import.meta.dirname, '..', '..', '.cache', 'packages');

const program = (name: string): Buffer => readFileSync(join(built, name));
const from = (...path: string[]): Buffer => readFileSync(join(source, 'test', 'images', ...path));
const ours = (tag: string): Recipe => RECIPES.find(recipe => recipe.tag === tag)!;

// Programs that tests run inside agnhost, with the packages of Debian that have them and their libraries.
const TOOLS = {
  paths: [
    '/bin/bash',
    '/usr/bin/curl',
    '/usr/bin/dig',
    '/usr/bin/nslookup',
    '/usr/bin/host',
    '/bin/nc.openbsd',
    '/bin/ss',
    '/bin/ip',
    '/usr/bin/iperf',
    '/usr/bin/getent',
  ],
  packages:
    `bash libtinfo6 curl libcurl4 bind9-dnsutils bind9-host bind9-libs netcat-openbsd iproute2 iperf libc6 libssl3 zlib1g libbsd0 libmd0
    libnghttp2-14 libidn2-0 librtmp1 libssh2-1 libpsl5 libgssapi-krb5-2 libldap-2.5-0 libzstd1 libbrotli1 libunistring2 libgnutls30 libhogweed6
    libnettle8 libgmp10 libkrb5-3 libk5crypto3 libcom-err2 libkrb5support0 libkeyutils1 libsasl2-2 libp11-kit0 libtasn1-6 libffi8 libuv1 liblmdb0
    libfstrm0 libprotobuf-c1 libjson-c5 libmaxminddb0 libxml2 libicu72 liblzma5 libstdc++6 libgcc-s1 libelf1 libbpf1 libmnl0 libcap2 libselinux1
    libpcre2-8-0 libc-bin libjemalloc2 libtirpc3 libxtables12 libdb5.3 libedit2 libaudit1 libcap-ng0`.split(/\s+/),
};

function agnhost(packages: FileTree): FileTree {
  const tree = new FileTree();
  copyWithLibraries(packages, tree, TOOLS.paths);
  // Upstream's netcat is that of OpenBSD. Busybox has taken its name, and its shell knows its own netcat before any file's.
  tree.symlink('/bin/sh', 'bash').symlink('/bin/nc', 'nc.openbsd').symlink('/usr/local/bin/iperf', '/usr/bin/iperf');
  return tree
    .directory('/uploads')
    .file('/localhost.crt', from('agnhost', 'porter', 'localhost.crt'))
    .file('/localhost.key', from('agnhost', 'porter', 'localhost.key'))
    .file('/agnhost', program('agnhost'), 0o755)
    .symlink('/agnhost-2', 'agnhost');
}
const AGNHOST: Omit<Recipe, 'tag'> = {
  packages: TOOLS.packages,
  layer: agnhost,
  config: {
    Entrypoint: ['/agnhost'],
    Cmd: ['pause'],
    ExposedPorts: { '80/tcp': {}, '8080/tcp': {}, '8081/tcp': {}, '9376/tcp': {} },
  },
};
const web = (name: string): ((packages: FileTree) => FileTree) => {
  return packages =>
    agnhost(packages)
      .file(`/${name}.jpg`, from(name, 'html', `${name}.jpg`))
      .file('/data.json', from(name, 'html', 'data.json'));
};
// "It works!" is what tests ask of httpd; busybox says it as well.
const httpd = (tag: string): Recipe => ({
  tag,
  packages: [],
  layer: () =>
    new FileTree().file('/usr/local/apache2/htdocs/index.html', '<html><body><h1>It works!</h1></body></html>\n'),
  config: { Cmd: ['httpd', '-f', '-v', '-p', '80', '-h', '/usr/local/apache2/htdocs'], ExposedPorts: { '80/tcp': {} } },
});

const recipes: readonly Recipe[] = [
  { tag: 'k8s.gcr.io/e2e-test-images/agnhost:2.21', ...AGNHOST },
  { tag: 'gcr.io/kubernetes-e2e-test-images/jessie-dnsutils:1.0', ...AGNHOST, config: { Cmd: ['sleep', '3600'] } },
  ...(['kitten', 'nautilus'] as const).map(name => ({
    tag: `gcr.io/kubernetes-e2e-test-images/${name}:1.0`,
    packages: TOOLS.packages,
    layer: web(name),
    config: { Entrypoint: ['/agnhost'], Cmd: ['test-webserver'] },
  })),
  {
    tag: 'gcr.io/kubernetes-e2e-test-images/nonewprivs:1.0',
    packages: [],
    layer: () => new FileTree().file('/usr/local/bin/nnp', program('nnp'), 0o4755),
    config: { Cmd: ['nnp'] },
  },
  {
    tag: 'gcr.io/kubernetes-e2e-test-images/sample-apiserver:1.17',
    packages: [],
    layer: () => new FileTree().file('/sample-apiserver', program('sample-apiserver'), 0o755),
    config: { Entrypoint: ['/sample-apiserver'] },
  },
  {
    tag: 'k8s.gcr.io/etcd:3.4.13-0',
    packages: ['etcd-server', 'etcd-client', 'libc6'],
    layer: packages => {
      const tree = new FileTree();
      copyWithLibraries(packages, tree, ['/usr/bin/etcd', '/usr/bin/etcdctl']);
      return tree.symlink('/usr/local/bin/etcd', '/usr/bin/etcd').symlink('/usr/local/bin/etcdctl', '/usr/bin/etcdctl');
    },
    config: { Cmd: ['etcd'] },
  },
  {
    tag: 'k8s.gcr.io/pause:3.2',
    packages: [],
    layer: () => new FileTree().file('/pause', program('pause'), 0o755),
    config: { Entrypoint: ['/pause'] },
  },
  { ...ours('busybox:1.35'), tag: 'busybox:1.29' },
  { ...ours('nginx:1.22'), tag: 'nginx:1.14-alpine' },
  { ...ours('nginx:1.22'), tag: 'nginx:1.15-alpine' },
  { ...ours('redis:7'), tag: 'redis:5.0.5-alpine' },
  httpd('httpd:2.4.38-alpine'),
  httpd('httpd:2.4.39-alpine'),
];

mkdirSync(out, { recursive: true });
const packages = fetchPackages(
  [...new Set([BASE_PACKAGES, ...recipes.map(recipe => recipe.packages)].flat())],
  cache,
  line => console.log(line),
);
for (const recipe of recipes) {
  const path = join(out, `${recipe.tag.replace(/[/:]/g, '-')}.tar`);
  writeFileSync(path, await dockerArchive(recipe, packages));
  console.log(recipe.tag);
}
