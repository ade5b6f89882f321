import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Job, JobSpec } from '../../api/batch/v1.gen.ts';
import type { Pod, PodStatus } from '../../api/core/v1.gen.ts';
import {
  awaitingReplacement,
  failedIndexes,
  failureAnnotations,
  isPodFailed,
  policyMatch,
  replaceableAtMs,
  successPolicyMatch,
} from './failures.ts';

const INDEX = 'batch.kubernetes.io/job-completion-index';
const COUNT = 'batch.kubernetes.io/job-index-failure-count';

const jobOf = (spec: object): Job => ({ metadata: { name: 'j' }, spec: { completions: 3, ...spec } as JobSpec }) as Job;
const podOf = (index: number, status: PodStatus, annotations: Record<string, string> = {}, metadata = {}): Pod =>
  ({
    metadata: { namespace: 'd', name: `j-${index}`, annotations: { [INDEX]: `${index}`, ...annotations }, ...metadata },
    spec: { nodeName: 'n' },
    status,
  }) as unknown as Pod;
const exited = (exitCode: number): PodStatus =>
  ({
    phase: 'Failed',
    containerStatuses: [
      { name: 'c', state: { terminated: { exitCode, finishedAt: '2026-01-01T00:00:10Z' } }, restartCount: 0 },
    ],
  }) as unknown as PodStatus;

test('an index fails when it has used up its own limit', () => {
  const job = jobOf({ backoffLimitPerIndex: 1 });
  const first = podOf(1, exited(1), { [COUNT]: '0' });
  assert.deepEqual([...failedIndexes(job, [first])], []);
  const awaiting = awaitingReplacement(job, [first, podOf(0, { phase: 'Running' } as PodStatus)], new Set());
  assert.deepEqual([...awaiting.keys()], [1]);
  assert.equal(replaceableAtMs(first), Date.parse('2026-01-01T00:00:20Z'));
  assert.deepEqual(failureAnnotations(job, first), { [COUNT]: '1' });
  assert.deepEqual(failureAnnotations(job, undefined), { [COUNT]: '0' });
  const second = podOf(1, exited(1), { [COUNT]: '1' });
  assert.deepEqual([...failedIndexes(job, [first, second])], [1]);
});

test('a failure policy names what it matched', () => {
  const rules = [
    { action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] },
    { action: 'FailIndex', onExitCodes: { operator: 'In', values: [42] } },
  ];
  const job = jobOf({ backoffLimitPerIndex: 5, podFailurePolicy: { rules } });
  assert.deepEqual(policyMatch(job, podOf(0, exited(42))), {
    action: 'FailIndex',
    message: 'Container c for pod d/j-0 failed with exit code 42 matching FailIndex rule at index 1',
  });
  assert.deepEqual([...failedIndexes(job, [podOf(0, exited(42)), podOf(1, exited(1))])], [0]);
});

test('a pod on its way out has failed, unless replacements wait for its end', () => {
  const leaving = podOf(0, { phase: 'Running' } as PodStatus, {}, { deletionTimestamp: '2026-01-01T00:00:00Z' });
  assert.equal(isPodFailed(leaving, jobOf({})), true);
  assert.equal(isPodFailed(leaving, jobOf({ podReplacementPolicy: 'Failed' })), false);
});

test('success policies count indexes', () => {
  const job = jobOf({
    successPolicy: { rules: [{ succeededIndexes: '0,2' }, { succeededIndexes: '0-2', succeededCount: 2 }] },
  });
  assert.equal(successPolicyMatch(job, new Set([0])), undefined);
  assert.equal(successPolicyMatch(job, new Set([0, 1])), 'Matched rules at index 1');
  assert.equal(successPolicyMatch(job, new Set([0, 2])), 'Matched rules at index 0');
  assert.equal(successPolicyMatch(jobOf({}), new Set([0])), undefined);
});
