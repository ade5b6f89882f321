/**
 * A real Ceph cluster of one node: a monitor, an object store in memory and a metadata server, of Debian's packages, in this
 * process's own namespaces. All of it ends with the namespaces.
 */

import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export class CephCluster {
  readonly #folder: string;
  readonly #address: string;

  constructor(options: { folder: string; address: string }) {
    this.#folder = options.folder;
    this.#address = options.address;
  }
  get monitor(): string {
    return `${this.#address}:6789`;
  }

  /** Resolves once a file system is served. */
  async start(): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    mkdirSync(this.#folder, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', 'none', this.#folder]);
    for (const name of ['mon', 'osd', 'mds', 'run']) mkdirSync(at(name));
    const cluster = randomUUID();
    writeFileSync(at('ceph.conf'), this.#configuration(cluster));
    const tool = (...args: string[]) => this.#run('ceph-authtool', ...args);
    tool('--create-keyring', at('mon.keyring'), '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *');
    const rights = ['mon', 'osd', 'mds', 'mgr'].flatMap(part => ['--cap', part, 'allow *']);
    tool('--create-keyring', at('client.admin.keyring'), '--gen-key', '-n', 'client.admin', ...rights);
    tool(at('mon.keyring'), '--import-keyring', at('client.admin.keyring'));
    const endpoints = `[v2:${this.#address}:3300,v1:${this.#address}:6789]`;
    this.#run('monmaptool', '--create', '--addv', 'a', endpoints, '--fsid', cluster, at('monmap'));
    this.#run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', at('monmap'), '--keyring', at('mon.keyring'));
    copyFileSync(at('mon.keyring'), at('mon/keyring'));
    this.#run('ceph-mon', '-i', 'a');
    const create = (name: string, ...caps: string[]) =>
      writeFileSync(at(`${name}.keyring`), this.ceph('auth', 'get-or-create', name, ...caps), { mode: 0o600 });
    create('osd.0', 'mon', 'allow profile osd', 'osd', 'allow *');
    create('mds.a', 'mon', 'allow profile mds', 'osd', 'allow rwx', 'mds', 'allow *');
    const store = randomUUID();
    this.ceph('osd', 'new', store);
    this.#run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', store);
    this.#run('ceph-osd', '-i', '0');
    this.#run('ceph-mds', '-i', 'a');
    this.ceph('osd', 'pool', 'create', 'meta', '8');
    this.ceph('osd', 'pool', 'create', 'data', '8');
    this.ceph('fs', 'new', 'fs', 'meta', 'data');
    for (let tries = 0; !this.ceph('mds', 'stat').includes('up:active'); tries++) {
      if (tries > 120) throw new Error(`no metadata server is active: ${this.ceph('-s')}`);
      await sleep(250);
    }
  }

  /** The key of a user who may do everything with the file system. */
  keyOf(user: string): string {
    if (user === 'admin')
      return /key = (\S+)/.exec(readFileSync(join(this.#folder, 'client.admin.keyring'), 'utf8'))![1]!;
    this.ceph('fs', 'authorize', 'fs', `client.${user}`, '/', 'rw');
    return this.ceph('auth', 'print-key', `client.${user}`).trim();
  }

  ceph(...args: string[]): string {
    return this.#run('ceph', '--connect-timeout', '20', ...args);
  }

  #run(program: string, ...args: string[]): string {
    return execFileSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, CEPH_CONF: join(this.#folder, 'ceph.conf') },
    });
  }

  #configuration(cluster: string): string {
    const folder = this.#folder;
    return `[global]
fsid = ${cluster}
mon host = ${this.#address}
public addr = ${this.#address}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 134217728
mon allow pool size one = true
run dir = ${folder}/run
admin socket = ${folder}/run/$name.asok
pid file = ${folder}/run/$name.pid
log file = ${folder}/$name.log
keyring = ${folder}/$name.keyring
mon data = ${folder}/mon
osd data = ${folder}/osd
mds data = ${folder}/mds
mds beacon interval = 1
`;
  }
}
