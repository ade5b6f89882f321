/**
 * Events, stored as core/v1 whichever group wrote them. An event with `eventTime` was written by the newer API and must
 * say who reports it; the older kind only has to agree with the namespace of its object.
 */

import { defineKind } from '../kind.ts';
import { nameColumn, text, wideText } from '../machinery/columns.ts';
import { ageSince } from '../machinery/duration.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, type Errors, requireText } from '../machinery/validation.ts';
import type { Event } from './v1.gen.ts';

const TEXT_BYTES_MAX = 128;
const MESSAGE_BYTES_MAX = 1024;

export const event = defineKind<Event>({
  group: '',
  version: 'v1',
  kind: 'Event',
  createOnUpdate: true,
  validate: object => {
    const errors: Errors = [];
    const namespace = object.metadata.namespace ?? '';
    const involved = object.involvedObject?.namespace ?? '';
    if (object.eventTime) checkReported(errors, object, namespace, involved);
    else {
      const agrees = involved === '' ? namespace === '' || namespace === 'default' : namespace === involved;
      if (!agrees) addInvalid(errors, 'involvedObject.namespace', involved, 'does not match event.namespace');
    }
    addProblems(errors, 'namespace', namespace, dnsSubdomainProblems(namespace));
    return errors;
  },
  selectableFields: {
    'involvedObject.kind': object => object.involvedObject?.kind ?? '',
    'involvedObject.namespace': object => object.involvedObject?.namespace ?? '',
    'involvedObject.name': object => object.involvedObject?.name ?? '',
    'involvedObject.uid': object => object.involvedObject?.uid ?? '',
    'involvedObject.apiVersion': object => object.involvedObject?.apiVersion ?? '',
    'involvedObject.resourceVersion': object => object.involvedObject?.resourceVersion ?? '',
    'involvedObject.fieldPath': object => object.involvedObject?.fieldPath ?? '',
    reason: object => object.reason ?? '',
    reportingComponent: object => object.reportingComponent ?? '',
    source: object => object.source?.component || object.reportingComponent || '',
    type: object => object.type ?? '',
  },
  columns: [
    text('Last Seen', lastSeen),
    text('Type', object => object.type ?? ''),
    text('Reason', object => object.reason ?? ''),
    text('Object', object => {
      const kind = (object.involvedObject?.kind ?? '').toLowerCase();
      return object.involvedObject?.name ? `${kind}/${object.involvedObject.name}` : kind;
    }),
    wideText('Subobject', object => object.involvedObject?.fieldPath ?? ''),
    wideText('Source', source),
    text('Message', object => (object.message ?? '').trim()),
    wideText('First Seen', firstSeen),
    wideText('Count', object => object.series?.count ?? (object.count || 1)),
    { ...nameColumn, priority: 1 },
  ],
});

function checkReported(errors: Errors, object: Event, namespace: string, involved: string): void {
  if (involved === '' && namespace !== 'default' && namespace !== 'kube-system')
    addInvalid(errors, 'involvedObject.namespace', involved, 'does not match event.namespace');
  const controller = object.reportingComponent ?? '';
  requireText(errors, 'reportingComponent', controller);
  addProblems(errors, 'reportingComponent', controller, qualifiedNameProblems(controller));
  for (const [field, path] of [
    ['reportingInstance', 'reportingIntance'],
    ['action', 'action'],
    ['reason', 'reason'],
  ] as const) {
    const value = object[field] ?? '';
    requireText(errors, field, value);
    if (value.length > TEXT_BYTES_MAX) addInvalid(errors, path, '', `can have at most ${TEXT_BYTES_MAX} characters`);
  }
  if ((object.message?.length ?? 0) > MESSAGE_BYTES_MAX)
    addInvalid(errors, 'message', '', `can have at most ${MESSAGE_BYTES_MAX} characters`);
}

function firstSeen(object: Event, nowMs: number): string {
  return ageSince(object.firstTimestamp || object.eventTime, nowMs);
}

function lastSeen(object: Event, nowMs: number): string {
  const latest = object.series ? object.series.lastObservedTime : object.lastTimestamp;
  return latest ? ageSince(latest, nowMs) : firstSeen(object, nowMs);
}

function source(object: Event): string {
  const component = object.source?.component || object.reportingComponent || '';
  const host = object.source?.host || object.reportingInstance || '';
  return [component, ...(host ? [host] : [])].join(', ');
}
