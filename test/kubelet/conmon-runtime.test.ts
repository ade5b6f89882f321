/** The runtime against real runc and conmon. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { silentLogger } from '../../src/base/log.ts';
import { ConmonRuntime } from '../../src/kubelet/runtime/conmon-runtime.ts';
import { cgroups, runtimeSuite } from './runtime-suite.ts';

runtimeSuite({
  open: ({ root, images, network }) =>
    new ConmonRuntime({
      rootDir: join(root, 'lib'),
      runDir: join(root, 'run'),
      images,
      cgroups,
      network,
      log: silentLogger,
    }),
  close: runtime => (runtime as ConmonRuntime).removeAll(),
  checkRemoved({ root }, { sandbox, container }) {
    assert.equal(existsSync(join(root, 'run/c', container)), false);
    assert.equal(existsSync(join(root, 'run/s', sandbox)), false);
  },
});
