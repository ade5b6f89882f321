/**
 * Events, stored as core/v1 whichever group wrote them. An event with `eventTime` was written by the newer API and must
 * say who reports it; the older kind only has to agree with the namespace of its object.
 */

import { defineKind } from '../kind.ts';
import { nameColumn, text, wideText } from '../machinery/columns.ts';
import { ageSince } from '../machinery/duration.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, type Errors, IMMUTABLE, requireText } from '../machinery/validation.ts';
import type { Event } from './v1.gen.ts';

const TEXT_BYTES_MAX = 128;
const MESSAGE_BYTES_MAX = 1024;
const NEWER_GROUP = 'events.k8s.io';
/** What an update by the newer API may not change, with the paths that its errors have. */
const FIXED = [
  ['involvedObject', 'involvedObject'],
  ['reason', 'reason'],
  ['message', 'message'],
  ['source', 'source'],
  ['firstTimestamp', 'firstTimestamp'],
  ['lastTimestamp', 'lastTimestamp'],
  ['count', 'count'],
  ['type', 'type'],
  ['eventTime', 'eventTime'],
  ['action', 'action'],
  ['related', 'related'],
  ['reportingComponent', 'reportingController'],
  ['reportingInstance', 'reportingInstance'],
] as const;
/** How an error shows a field that is not there any more. */
const UNSET: Readonly<Record<string, unknown>> = {
  reason: '',
  message: '',
  count: 0,
  type: '',
  action: '',
  reportingComponent: '',
  reportingInstance: '',
};

export const event = defineKind<Event>({
  group: '',
  version: 'v1',
  kind: 'Event',
  createOnUpdate: true,
  // An update is judged by what it changes; the newer API lets only the series grow.
  ratchets: true,
  validate: (object, group) => {
    const errors = checkLegacy(object, group);
    if (group !== NEWER_GROUP) return errors;
    checkSeries(errors, object);
    requireText(errors, 'eventTime', object.eventTime ?? undefined);
    const type = object.type ?? '';
    if (type !== 'Normal' && type !== 'Warning') addInvalid(errors, 'type', '', `has invalid value: ${type}`);
    const { source = {} } = object;
    const isSet = { ...object, source: source.component || source.host };
    for (const field of ['firstTimestamp', 'lastTimestamp', 'count', 'source'] as const)
      if (isSet[field]) addInvalid(errors, field, '', 'needs to be unset');
    return errors;
  },
  validateUpdate: (object, old, group) => {
    const errors = checkLegacy(object, group);
    if (group !== NEWER_GROUP) return errors;
    if (!semanticEqual(object.series, old.series)) checkSeries(errors, object);
    for (const [field, path] of FIXED) {
      const now = object[field] ?? UNSET[field];
      if (!semanticEqual(now, old[field] ?? UNSET[field])) addInvalid(errors, path, now, IMMUTABLE);
    }
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

/** What holds for every event, whichever group it came by. */
function checkLegacy(object: Event, group: string | undefined): Errors {
  const errors: Errors = [];
  const namespace = object.metadata.namespace ?? '';
  const involved = object.involvedObject?.namespace ?? '';
  if (object.eventTime) checkReported(errors, object, { namespace, involved, group });
  else {
    const agrees = involved === '' ? namespace === '' || namespace === 'default' : namespace === involved;
    if (!agrees) addInvalid(errors, 'involvedObject.namespace', involved, 'does not match event.namespace');
  }
  addProblems(errors, 'namespace', namespace, dnsSubdomainProblems(namespace));
  return errors;
}

function checkSeries(errors: Errors, { series }: Event): void {
  if (!series) return;
  if ((series.count ?? 0) < 2) addInvalid(errors, 'series.count', '', 'should be at least 2');
  requireText(errors, 'series.lastObservedTime', series.lastObservedTime ?? undefined);
}

function checkReported(
  errors: Errors,
  object: Event,
  from: { readonly namespace: string; readonly involved: string; readonly group: string | undefined },
): void {
  const { namespace, involved } = from;
  if (involved === '' && namespace !== 'default' && namespace !== 'kube-system')
    addInvalid(errors, 'involvedObject.namespace', involved, 'does not match event.namespace');
  const controller = object.reportingComponent ?? '';
  const at = from.group === NEWER_GROUP ? 'reportingController' : 'reportingComponent';
  requireText(errors, at, controller);
  addProblems(errors, at, controller, qualifiedNameProblems(controller));
  for (const field of ['reportingInstance', 'action', 'reason'] as const) {
    const value = object[field] ?? '';
    requireText(errors, field, value);
    if (value.length > TEXT_BYTES_MAX) addInvalid(errors, field, '', `can have at most ${TEXT_BYTES_MAX} characters`);
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
