import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CustomResourceDefinition } from '../api/apiextensions/v1.gen.ts';
import { LOOPBACK_USER } from '../apiserver/request.ts';
import { ApiServer } from '../apiserver/server.ts';
import { systemClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../client/resources.ts';
import { openMemoryStore } from '../store/memory.ts';
import { ensureStorageDefinitions, STORAGE_DEFINITIONS } from './storage-definitions.ts';

test('definitions are written once, brought up to date where we wrote them, and left alone where somebody else did', async () => {
  const server = await ApiServer.open({ store: openMemoryStore() });
  const api = server.transport(LOOPBACK_USER);
  const options = { clock: systemClock, log: silentLogger, signal: new AbortController().signal };
  const stored = async () =>
    Promise.all(
      STORAGE_DEFINITIONS.map(
        async ({ metadata: { name } }) =>
          (await api.get({ of: CUSTOM_RESOURCE_DEFINITIONS, name })) as CustomResourceDefinition,
      ),
    );
  const revisions = async () =>
    (await stored()).map(({ metadata, spec }) => [metadata.generation, spec.versions.length]);
  await ensureStorageDefinitions(api, options);
  const first = await revisions();
  await ensureStorageDefinitions(api, options);
  assert.deepEqual(await revisions(), first);

  // As an earlier version of ours had it, and as an administrator wants it.
  const [populator, snapshot] = await stored();
  const without = (one: CustomResourceDefinition) => ({
    ...one,
    spec: { ...one.spec, versions: one.spec.versions.map(({ additionalPrinterColumns: _, ...version }) => version) },
  });
  await api.update({ of: CUSTOM_RESOURCE_DEFINITIONS, name: populator!.metadata.name }, without(populator!));
  await api.update({ of: CUSTOM_RESOURCE_DEFINITIONS, name: snapshot!.metadata.name }, without(snapshot!), {
    fieldManager: 'somebody',
  });
  await ensureStorageDefinitions(api, options);
  const columns = (await stored()).map(({ spec }) => (spec.versions[0]!.additionalPrinterColumns ?? []).length > 0);
  assert.deepEqual(columns, [true, false, true, true]);
  await server.close();
});
