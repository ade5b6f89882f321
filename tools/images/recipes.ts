/**
 * The images of tests and examples: which Debian packages they come from, what is taken from them, what is added.
 * Each has the same bottom layer, busybox with all its applets, so every container has a shell and wget.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyWithLibraries } from './debian.ts';
import { FileTree } from './file-tree.ts';

/** OCI's names. */
export interface ImageConfig {
  readonly Env: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Labels?: Readonly<Record<string, string>>;
}

export interface Recipe {
  readonly tag: string;
  readonly packages: readonly string[];
  /** The layer above busybox; undefined for busybox itself. */
  readonly layer?: (packages: FileTree) => FileTree;
  readonly config: Omit<ImageConfig, 'Env'>;
}

export const BASE_PACKAGES = ['busybox-static'];
export const ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];

const NGINX_PACKAGES = [
  'nginx',
  'nginx-common',
  'libnginx-mod-stream',
  'libc6',
  'libcrypt1',
  'libpcre2-8-0',
  'libssl3',
  'zlib1g',
];
const REDIS_PACKAGES = [
  'redis-server',
  'redis-tools',
  'libc6',
  'libatomic1',
  'liblzf1',
  'libjemalloc2',
  'libsystemd0',
  'libssl3',
  'libcap2',
  'libgcrypt20',
  'libgpg-error0',
  'liblz4-1',
  'liblzma5',
  'libzstd1',
  'libgcc-s1',
  'libstdc++6',
];
const BASH_PACKAGES = ['bash', 'libtinfo6'];

/** Busybox under every name it answers to, accounts, and the folders that programs expect. */
export function baseLayer(packages: FileTree): FileTree {
  const tree = new FileTree();
  const busybox = packages.nodes.get('/bin/busybox');
  if (busybox?.type !== 'file') throw new Error('busybox-static has no /bin/busybox');
  tree.add('/bin/busybox', busybox);
  for (const applet of appletsOf(busybox.data)) if (applet !== 'busybox') tree.symlink(`/bin/${applet}`, 'busybox');
  tree.symlink('/usr/bin/env', '/bin/busybox');
  tree.file(
    '/etc/passwd',
    accounts.map(([name, id, home]) => `${name}:x:${id}:${id}:${name}:${home}:/bin/sh\n`).join(''),
  );
  tree.file('/etc/group', accounts.map(([name, id]) => `${name}:x:${id}:\n`).join(''));
  tree.file('/etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n');
  tree.directory('/root', 0o700).directory('/home').directory('/tmp', 0o1777).directory('/var/tmp', 0o1777);
  for (const path of ['/proc', '/sys', '/dev', '/run', '/var/log', '/var/run', '/var/spool', '/mnt', '/usr/local/bin'])
    tree.directory(path);
  return tree;
}

const accounts: readonly (readonly [name: string, id: number, home: string])[] = [
  ['root', 0, '/root'],
  ['daemon', 1, '/usr/sbin'],
  ['www-data', 33, '/var/www'],
  ['redis', 999, '/data'],
  ['nobody', 65534, '/'],
];

// The program itself knows; it is static, so it runs from anywhere.
function appletsOf(program: Buffer): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'busybox-'));
  try {
    writeFileSync(join(folder, 'busybox'), program, { mode: 0o755 });
    return execFileSync(join(folder, 'busybox'), ['--list'], { encoding: 'utf8' }).trim().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const NGINX_HEAD = `user www-data;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
`;

function nginxBase(packages: FileTree): FileTree {
  const tree = new FileTree();
  copyWithLibraries(packages, tree, [
    '/usr/sbin/nginx',
    '/etc/nginx/mime.types',
    '/etc/nginx/fastcgi_params',
    '/etc/nginx/proxy_params',
  ]);
  return tree
    .directory('/var/lib/nginx')
    .directory('/var/log/nginx')
    .directory('/usr/share/nginx/html')
    .directory('/etc/nginx/conf.d');
}

function nginxLayer(title: string): (packages: FileTree) => FileTree {
  return packages =>
    nginxBase(packages)
      .file(
        '/etc/nginx/nginx.conf',
        `${NGINX_HEAD}
events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"';
    access_log /dev/stdout main;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
`,
      )
      .file(
        '/etc/nginx/conf.d/default.conf',
        `server {
    listen 80;
    root /usr/share/nginx/html;
    index index.html;
}
`,
      )
      .file(
        '/usr/share/nginx/html/index.html',
        `<!DOCTYPE html>
<html>
<head><title>${title}</title></head>
<body>
<h1>${title}</h1>
<p>If you see this page, the web server is working.</p>
</body>
</html>
`,
      );
}

function redisLayer(packages: FileTree): FileTree {
  const tree = new FileTree();
  copyWithLibraries(packages, tree, ['/usr/bin/redis-server', '/usr/bin/redis-cli']);
  return tree.directory('/data', 0o755, 999);
}

// HTTP on 80 and 8080 tells who answers; UDP and TCP on 5000 answer with the host name. The files /tmp/not-ready and
// /tmp/not-live turn /ready and /live to failure, so `kubectl exec` can toggle what probes see.
function echoLayer(version: string): (packages: FileTree) => FileTree {
  return packages => {
    const tree = nginxBase(packages);
    copyWithLibraries(packages, tree, ['/usr/lib/nginx/modules/ngx_stream_module.so', '/bin/bash']);
    const says = [
      `version: ${version}`,
      'hostname: $hostname',
      'pod-ip: $server_addr',
      'client: $remote_addr',
      'request: $request_method $request_uri',
      'host: $http_host',
      'user-agent: $http_user_agent',
      'x-forwarded-for: $http_x_forwarded_for',
    ];
    return tree.file(
      '/etc/nginx/nginx.conf',
      `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
${NGINX_HEAD}
events {
    worker_connections 1024;
}

http {
    default_type text/plain;
    access_log /dev/stdout;
    keepalive_timeout 65;
    server {
        listen 80;
        listen [::]:80;
        listen 8080;
        listen [::]:8080;
        location / {
            return 200 "${says.join('\\n')}\\n";
        }
        location = /hostname {
            return 200 "$hostname\\n";
        }
        location = /client {
            return 200 "$remote_addr\\n";
        }
        location = /ready {
            if (-f /tmp/not-ready) {
                return 503 "not ready\\n";
            }
            return 200 "ok\\n";
        }
        location = /live {
            if (-f /tmp/not-live) {
                return 500 "not live\\n";
            }
            return 200 "ok\\n";
        }
    }
}

stream {
    server {
        listen 5000;
        listen [::]:5000;
        return "$hostname\\n";
    }
    server {
        listen 5000 udp;
        listen [::]:5000 udp;
        return "$hostname\\n";
    }
}
`,
    );
  };
}

const NGINX_CONFIG = { Cmd: ['nginx', '-g', 'daemon off;'], StopSignal: 'SIGQUIT', ExposedPorts: { '80/tcp': {} } };

/** In the order they are built. */
export const RECIPES: readonly Recipe[] = [
  { tag: 'busybox:1.35', packages: [], config: { Cmd: ['sh'] } },
  { tag: 'nginx:1.22', packages: NGINX_PACKAGES, layer: nginxLayer('Welcome to nginx!'), config: NGINX_CONFIG },
  {
    tag: 'nginx:1.22-b',
    packages: NGINX_PACKAGES,
    layer: nginxLayer('Welcome to nginx, second edition!'),
    config: NGINX_CONFIG,
  },
  {
    tag: 'redis:7',
    packages: REDIS_PACKAGES,
    layer: redisLayer,
    config: {
      Cmd: ['redis-server', '--protected-mode', 'no', '--dir', '/data'],
      WorkingDir: '/data',
      ExposedPorts: { '6379/tcp': {} },
    },
  },
  ...['1', '2'].map(version => ({
    tag: `coxswain/echo:${version}`,
    packages: [...NGINX_PACKAGES, ...BASH_PACKAGES],
    layer: echoLayer(version),
    config: { ...NGINX_CONFIG, ExposedPorts: { '80/tcp': {}, '8080/tcp': {}, '5000/tcp': {}, '5000/udp': {} } },
  })),
];
