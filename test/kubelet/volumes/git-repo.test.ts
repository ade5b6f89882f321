/** gitRepo volumes from a real Git server, hostile repositories among them. */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { GitRepoVolumeSource } from '../../../src/api/core/v1.gen.ts';
import { gitRepoVolume } from '../../../src/kubelet/volumes/git-repo.ts';
import { runInSandbox } from '../../../src/kubelet/volumes/sandbox.ts';
import type { VolumeContext } from '../../../src/kubelet/volumes/volume.ts';
import { exampleSource } from './context.ts';
import { ADDRESS, inOwnNamespaces, root } from './own-namespace.ts';

if (!root) test('gitRepo volumes', { skip: 'needs root' });
else if (inOwnNamespaces(import.meta.filename)) tests();

function tests(): void {
  const folder = mkdtempSync(join(tmpdir(), 'cox-git-'));
  const served = join(folder, 'served');
  const volumes = join(folder, 'volumes');
  let daemon: ChildProcess;
  let count = 0;

  const git = (cwd: string, ...args: string[]) =>
    execFileSync(
      'git',
      ['-c', 'user.name=t', '-c', 'user.email=t@example.com', '-c', 'protocol.file.allow=always', ...args],
      {
        cwd,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
  /** A repository with these files, committed; returns the commit. */
  function repository(name: string, files: Record<string, string>): string {
    const path = join(served, name);
    mkdirSync(path, { recursive: true });
    if (!existsSync(join(path, '.git'))) git(path, 'init', '-q', '-b', 'main');
    for (const [file, content] of Object.entries(files)) {
      mkdirSync(join(path, file, '..'), { recursive: true });
      writeFileSync(join(path, file), content);
    }
    git(path, 'add', '-A');
    git(path, 'commit', '-q', '-m', 'next');
    return git(path, 'rev-parse', 'HEAD').trim();
  }
  async function mount(source: Partial<GitRepoVolumeSource> & { repository: string }): Promise<string> {
    const path = join(volumes, `v${count++}`);
    await gitRepoVolume.mount(source as GitRepoVolumeSource, { path, podUid: 'uid', name: 'v' }, {
      signal: new AbortController().signal,
    } as VolumeContext);
    return path;
  }
  const url = (name: string) => `git://${ADDRESS}/${name}`;

  before(async () => {
    mkdirSync(volumes, { mode: 0o700 });
    mkdirSync(served);
    daemon = spawn(
      'git',
      ['daemon', '--reuseaddr', '--export-all', `--listen=${ADDRESS}`, `--base-path=${served}`, served],
      {
        stdio: 'ignore',
        env: { ...process.env, GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' },
      },
    );
    repository('ready', { x: '' });
    for (let tries = 0; tries < 200; tries++) {
      try {
        git(folder, 'ls-remote', url('ready'));
        return;
      } catch {
        await new Promise(resolve => setTimeout(resolve, 20));
      }
    }
    throw new Error('git daemon does not answer');
  });
  after(() => {
    daemon.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  test('a clone in a folder of its name, of one asked for, or in the volume itself', async () => {
    repository('site', { 'index.html': 'hello\n', 'run.sh': '#!/bin/sh\n' });
    assert.equal(readFileSync(join(await mount({ repository: url('site') }), 'site/index.html'), 'utf8'), 'hello\n');
    const nested = await mount({ repository: url('site'), directory: 'a/b' });
    assert.equal(readFileSync(join(nested, 'a/b/index.html'), 'utf8'), 'hello\n');
    const flat = await mount({
      ...exampleSource<GitRepoVolumeSource>('git-repo.yaml', 'gitRepo'),
      repository: url('site'),
    });
    assert.deepEqual(readdirSync(flat).sort(), ['.git', 'index.html', 'run.sh']);
    const { uid, mode } = statSync(join(flat, 'index.html'));
    assert.equal(uid, 0);
    assert.equal(mode & 0o444, 0o444, 'containers of any user can read it');
  });

  test('a revision: a commit, a tag, a branch', async () => {
    const first = repository('site', { 'index.html': 'first\n' });
    git(join(served, 'site'), 'tag', 'v1');
    repository('site', { 'index.html': 'second\n' });
    const at = async (revision: string) =>
      readFileSync(join(await mount({ repository: url('site'), directory: '.', revision }), 'index.html'), 'utf8');
    assert.equal(await at(first), 'first\n');
    assert.equal(await at('v1'), 'first\n');
    assert.equal(await at('origin/main'), 'second\n');
    await assert.rejects(at('nowhere'), /cloning "git:.*": .*nowhere/s);
    await assert.rejects(at('--upload-pack=id'), /gitRepo\.revision: Invalid value/);
  });

  test('a clone that fails leaves nothing, and says why', async () => {
    await assert.rejects(
      mount({ repository: url('missing') }),
      /cloning "git:.*missing": .*(not exported|access denied)/s,
    );
    assert.ok(!readdirSync(volumes).some(name => name.endsWith('.cloning')));
    await assert.rejects(mount({ repository: 'git://10.99.0.2/x' }), /cloning/);
  });

  test('hooks, nested repositories, submodules and links do nothing outside the volume', async () => {
    const trace = join(folder, 'trace');
    const script = `#!/bin/sh\nid > ${trace}; touch /tmp/trace\n`;
    const target = join(served, 'hostile');
    repository('inner', { file: 'inner\n' });
    repository('hostile', { hooks_: script });
    // A folder that looks like a bare repository with hooks, under the name that a later clone into it would use.
    repository('hostile', {
      'sub/hooks/post-checkout': script,
      'sub/HEAD': 'ref: refs/heads/main\n',
      'sub/config': '[core]\n\tfsmonitor = "sh -c true"\n',
    });
    execFileSync('ln', ['-s', '/etc', join(target, 'escape')]);
    execFileSync('ln', ['-s', '../../../../..', join(target, 'up')]);
    writeFileSync(join(target, '.gitattributes'), '* filter=evil\n');
    git(target, 'submodule', 'add', '-q', join(served, 'inner'), 'module');
    const submodule = `[submodule "module"]\n\tpath = module\n\turl = ${served}/inner\n`;
    writeFileSync(join(target, '.gitmodules'), submodule);
    repository('hostile', { last: 'x' });
    execFileSync('chmod', ['-R', '+x', join(target, 'sub/hooks')]);
    const path = await mount({ repository: url('hostile'), directory: 'here/sub' });
    repository('refused', { '.gitmodules': `${submodule}\tupdate = !touch ${trace}\n` });
    await assert.rejects(mount({ repository: url('refused') }), /disallowed submodule update setting/);
    assert.ok(!existsSync(trace) && !existsSync('/tmp/trace'), 'nothing ran');
    assert.deepEqual(readdirSync(join(path, 'here/sub/module')), [], 'submodules are not fetched');
    assert.ok(lstatSync(join(path, 'here/sub/escape')).isSymbolicLink());
    assert.equal(statSync('/etc').uid, 0);
    // chown did not follow the links either.
    assert.ok(readdirSync(join(path, 'here/sub/.git')).includes('HEAD'));
    assert.ok(!existsSync(join(path, 'here/sub/.git/hooks/post-checkout')), 'no template, no hooks');
  });

  test('the sandbox of git: nobody, who can write the volume only', async () => {
    const volume = join(volumes, 'sandboxed');
    mkdirSync(volume, { mode: 0o700 });
    execFileSync('chown', ['65534:65534', volume]);
    const said = await runInSandbox({ volume, signal: new AbortController().signal }, [
      'sh',
      '-c',
      'id -u; grep -E "CapEff|NoNewPrivs" /proc/self/status; touch /etc/x /var/x /root/x; cat /etc/shadow; ls /proc | grep -c "^[0-9]"; touch own; pwd',
    ]);
    assert.match(said, /^65534\n/);
    assert.match(said, /NoNewPrivs:\s1/);
    assert.match(said, /CapEff:\s0000000000000000/);
    assert.match(said, /\n[1-5]\n\/tmp\/volume\n$/);
    assert.ok(!existsSync('/etc/x') && !existsSync('/var/x') && !existsSync('/root/x'));
    assert.doesNotMatch(said, /root:/);
    assert.ok(existsSync(join(volume, 'own')));
  });
}
