/** Webhook configurations. */

import { defineKind, type Kind } from '../kind.ts';
import { ageColumn, integer, nameColumn } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import type {
  MutatingWebhook,
  MutatingWebhookConfiguration,
  ValidatingWebhook,
  ValidatingWebhookConfiguration,
} from './v1.gen.ts';

const GROUP = 'admissionregistration.k8s.io';
const OPERATIONS = ['*', 'CONNECT', 'CREATE', 'DELETE', 'UPDATE'];

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

const shared: Pick<
  Kind<Configuration>,
  'unconditionalUpdate' | 'prepareCreate' | 'prepareUpdate' | 'validate' | 'columns'
> = {
  unconditionalUpdate: false,
  prepareCreate: object => {
    object.metadata.generation = 1;
  },
  prepareUpdate: (object, old) => {
    const changed = !semanticEqual(object.webhooks, old.webhooks);
    object.metadata.generation = (old.metadata.generation ?? 0) + (changed ? 1 : 0);
  },
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
    addProblems(errors, `${path}.name`, webhook.name, dnsSubdomainProblems(webhook.name));
    if (webhook.name.split('.').length < 3)
      addInvalid(
        errors,
        `${path}.name`,
        webhook.name,
        'should be a domain with at least three segments separated by dots',
      );
  }
  eachAt(webhook.rules, `${path}.rules`, (rule, at) => {
    if (!rule.operations?.length) addRequired(errors, `${at}.operations`);
    eachAt(rule.operations, `${at}.operations`, (operation, operationAt) =>
      allowOneOf(errors, operationAt, operation, OPERATIONS),
    );
    for (const field of ['apiGroups', 'apiVersions', 'resources'] as const)
      if (!rule[field]?.length) addRequired(errors, `${at}.${field}`);
    allowOneOf(errors, `${at}.scope`, rule.scope, ['*', 'Cluster', 'Namespaced']);
  });
  allowOneOf(errors, `${path}.failurePolicy`, webhook.failurePolicy, ['Fail', 'Ignore']);
  allowOneOf(errors, `${path}.matchPolicy`, webhook.matchPolicy, ['Equivalent', 'Exact']);
  requireOneOf(errors, `${path}.sideEffects`, webhook.sideEffects, ['None', 'NoneOnDryRun']);
  if (!webhook.admissionReviewVersions?.length)
    addRequired(errors, `${path}.admissionReviewVersions`, 'must specify one of v1, v1beta1');
  const seconds = webhook.timeoutSeconds;
  if (seconds !== undefined && (seconds > 30 || seconds < 1))
    addInvalid(errors, `${path}.timeoutSeconds`, seconds, 'the timeout value must be between 1 and 30 seconds');
  checkLabelSelector(errors, `${path}.namespaceSelector`, webhook.namespaceSelector);
  checkLabelSelector(errors, `${path}.objectSelector`, webhook.objectSelector);
  const { url, service } = webhook.clientConfig ?? {};
  if ((url === undefined) === (service === undefined))
    addRequired(errors, `${path}.clientConfig`, 'exactly one of url or service is required');
  else if (url !== undefined && !url.startsWith('https://'))
    addInvalid(
      errors,
      `${path}.clientConfig.url`,
      url,
      "'https' is the only allowed URL scheme; desired format: https://host[/path]",
    );
  else if (service)
    for (const field of ['namespace', 'name'] as const)
      requireText(errors, `${path}.clientConfig.service.${field}`, service[field]);
}
