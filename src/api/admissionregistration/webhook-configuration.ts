/** Webhook configurations. */

import { defineKind, type Kind } from '../kind.ts';
import { ageColumn, integer, nameColumn } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dns1035LabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import { checkWebhookClient } from '../machinery/webhook-client.ts';
import { checkMatchConditions, checkRequestRule } from './rule-validation.ts';
import type {
  MutatingWebhook,
  MutatingWebhookConfiguration,
  ValidatingWebhook,
  ValidatingWebhookConfiguration,
} from './v1.gen.ts';

const GROUP = 'admissionregistration.k8s.io';
const REVIEW_VERSIONS = ['v1', 'v1beta1'];

type Webhook = ValidatingWebhook | MutatingWebhook;
type Configuration = ValidatingWebhookConfiguration | MutatingWebhookConfiguration;

function webhookDefaults(webhook: Webhook): void {
  webhook.failurePolicy ??= 'Fail';
  webhook.matchPolicy ??= 'Equivalent';
  webhook.namespaceSelector ??= {};
  webhook.objectSelector ??= {};
  webhook.timeoutSeconds ??= 10;
  for (const rule of webhook.rules ?? []) rule.scope ??= '*';
  if (webhook.clientConfig?.service) webhook.clientConfig.service.port ??= 443;
}

const shared: Pick<Kind<Configuration>, 'unconditionalUpdate' | 'isNewGeneration' | 'validate' | 'columns'> = {
  unconditionalUpdate: false,
  isNewGeneration: (object, old) => !semanticEqual(object.webhooks, old.webhooks),
  validate: object => {
    const errors: Errors = [];
    const names = new Set<string>();
    eachAt<Webhook>(object.webhooks, 'webhooks', (webhook, at) => {
      if (names.has(webhook.name)) addDuplicate(errors, `${at}.name`, webhook.name);
      names.add(webhook.name);
      checkWebhook(errors, at, webhook);
    });
    return errors;
  },
  columns: [nameColumn, integer('Webhooks', object => object.webhooks?.length), ageColumn],
};

export const validatingWebhookConfiguration = defineKind<ValidatingWebhookConfiguration>({
  group: GROUP,
  version: 'v1',
  kind: 'ValidatingWebhookConfiguration',
  ...(shared as Partial<Kind<ValidatingWebhookConfiguration>>),
  defaults: object => {
    for (const webhook of object.webhooks ?? []) webhookDefaults(webhook);
  },
});

export const mutatingWebhookConfiguration = defineKind<MutatingWebhookConfiguration>({
  group: GROUP,
  version: 'v1',
  kind: 'MutatingWebhookConfiguration',
  ...(shared as Partial<Kind<MutatingWebhookConfiguration>>),
  defaults: object => {
    for (const webhook of object.webhooks ?? []) {
      webhookDefaults(webhook);
      webhook.reinvocationPolicy ??= 'Never';
    }
  },
});

function checkWebhook(errors: Errors, path: string, webhook: Webhook): void {
  if (requireText(errors, `${path}.name`, webhook.name)) {
    const problems = dnsSubdomainProblems(webhook.name);
    if (problems.length > 0) addInvalid(errors, `${path}.name`, webhook.name, problems.join(','));
    else if (webhook.name.split('.').length < 3)
      addInvalid(
        errors,
        `${path}.name`,
        webhook.name,
        'should be a domain with at least three segments separated by dots',
      );
  }
  eachAt(webhook.rules, `${path}.rules`, (rule, at) => checkRequestRule(errors, at, rule));
  allowOneOf(errors, `${path}.failurePolicy`, webhook.failurePolicy, ['Fail', 'Ignore']);
  allowOneOf(errors, `${path}.matchPolicy`, webhook.matchPolicy, ['Equivalent', 'Exact']);
  if (webhook.sideEffects === undefined)
    addRequired(errors, `${path}.sideEffects`, 'must specify one of None, NoneOnDryRun');
  allowOneOf(errors, `${path}.sideEffects`, webhook.sideEffects, ['None', 'NoneOnDryRun']);
  const seconds = webhook.timeoutSeconds;
  if (seconds !== undefined && (seconds > 30 || seconds < 1))
    addInvalid(errors, `${path}.timeoutSeconds`, seconds, 'the timeout value must be between 1 and 30 seconds');
  checkLabelSelector(errors, `${path}.namespaceSelector`, webhook.namespaceSelector);
  checkLabelSelector(errors, `${path}.objectSelector`, webhook.objectSelector);
  if ('reinvocationPolicy' in webhook)
    allowOneOf(errors, `${path}.reinvocationPolicy`, webhook.reinvocationPolicy, ['IfNeeded', 'Never']);
  checkWebhookClient(errors, `${path}.clientConfig`, webhook.clientConfig ?? {});
  checkMatchConditions(errors, `${path}.matchConditions`, webhook.matchConditions);
  checkReviewVersions(errors, `${path}.admissionReviewVersions`, webhook.admissionReviewVersions ?? []);
}

function checkReviewVersions(errors: Errors, path: string, versions: readonly string[]): void {
  if (versions.length === 0) {
    addRequired(errors, path, `must specify one of ${REVIEW_VERSIONS.join(', ')}`);
    return;
  }
  eachAt(versions, path, (version, at, index) => {
    if (versions.indexOf(version) < index) addInvalid(errors, at, version, 'duplicate version');
    else addProblems(errors, at, version, dns1035LabelProblems(version));
  });
  if (!versions.some(version => REVIEW_VERSIONS.includes(version)))
    addInvalid(errors, path, versions, `must include at least one of ${REVIEW_VERSIONS.join(', ')}`);
}
