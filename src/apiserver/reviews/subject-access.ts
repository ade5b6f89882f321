/** "May X do Y?": SubjectAccessReview, its local and self forms, SelfSubjectRulesReview and SelfSubjectReview. */

import type {
  LocalSubjectAccessReview,
  SelfSubjectAccessReview,
  SelfSubjectRulesReview,
  SubjectAccessReview,
  SubjectAccessReviewSpec,
} from '../../api/authorization/v1.gen.ts';
import type { KubeObject, ObjectMeta } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { badRequest, type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import type { Authorizer, CreateHandler, RequestAttributes, UserInfo } from '../request.ts';

const GROUP = 'authorization.k8s.io';
/** Upstream's refusals of these reviews do not name the kind. */
const UNNAMED = { group: GROUP, kind: '' };
const resource = (name: string) => ({ group: GROUP, version: 'v1', resource: name });

export function subjectAccessHandlers(authorizer: Authorizer, clock: Clock): CreateHandler[] {
  const decide = async (spec: SubjectAccessReviewSpec, user: UserInfo) => {
    const decision = await authorizer.authorize(attributesOf(spec, user));
    return { allowed: decision.allowed, ...(decision.reason ? { reason: decision.reason } : {}) };
  };
  const named = (spec: SubjectAccessReviewSpec): UserInfo => ({
    name: spec.user ?? '',
    groups: spec.groups ?? [],
    ...(spec.uid ? { uid: spec.uid } : {}),
    ...(spec.extra ? { extra: spec.extra } : {}),
  });
  const answer = (body: KubeObject, status: object): KubeObject =>
    ({ ...body, metadata: body.metadata ?? {}, status }) as KubeObject;

  return [
    {
      of: resource('subjectaccessreviews'),
      async create(body) {
        const { spec = {} } = body as SubjectAccessReview;
        check(body as SubjectAccessReview, { needsSubject: true });
        return answer(body, await decide(spec, named(spec)));
      },
    },
    {
      of: resource('localsubjectaccessreviews'),
      async create(body, { attributes }) {
        const { spec = {} } = body as LocalSubjectAccessReview;
        check(body as LocalSubjectAccessReview, { needsSubject: true, isLocal: true });
        if (spec.nonResourceAttributes)
          throw invalid(UNNAMED, '', [
            fieldErrors.invalid(
              'spec.nonResourceAttributes',
              spec.nonResourceAttributes,
              'disallowed on this kind of request',
            ),
          ]);
        if (spec.resourceAttributes?.namespace !== attributes.namespace)
          throw invalid(UNNAMED, '', [
            fieldErrors.invalid(
              'spec.resourceAttributes.namespace',
              spec.resourceAttributes?.namespace ?? '',
              'must match metadata.namespace',
            ),
          ]);
        return answer(body, await decide(spec, named(spec)));
      },
    },
    {
      of: resource('selfsubjectaccessreviews'),
      async create(body, { attributes }) {
        const { spec = {} } = body as SelfSubjectAccessReview;
        check(body as SelfSubjectAccessReview, { needsSubject: false });
        return answer(body, await decide(spec, attributes.user));
      },
    },
    {
      of: resource('selfsubjectrulesreviews'),
      async create(body, { attributes }) {
        const { namespace } = (body as SelfSubjectRulesReview).spec ?? {};
        if (!namespace) throw badRequest('no namespace on request');
        const rules = authorizer.rulesFor?.(attributes.user, namespace) ?? {
          resourceRules: [],
          nonResourceRules: [],
          incomplete: true,
        };
        return answer(body, rules);
      },
    },
    {
      of: { group: 'authentication.k8s.io', version: 'v1', resource: 'selfsubjectreviews' },
      async create(body, { attributes }) {
        const { kind, apiVersion } = body;
        const metadata = { creationTimestamp: formatTime(clock.now()) };
        return { kind, apiVersion, metadata, status: { userInfo: shown(attributes.user) } } as unknown as KubeObject;
      },
    },
  ];
}

/** A user as reviews show it. */
export function shown(user: UserInfo): object {
  return {
    username: user.name,
    ...(user.uid ? { uid: user.uid } : {}),
    groups: user.groups,
    ...(user.extra ? { extra: user.extra } : {}),
  };
}

function attributesOf(spec: SubjectAccessReviewSpec, user: UserInfo): RequestAttributes {
  const of = spec.resourceAttributes;
  const url = spec.nonResourceAttributes;
  return {
    user,
    verb: of?.verb ?? url?.verb ?? '',
    isResource: of !== undefined,
    group: of?.group ?? '',
    version: of?.version ?? '',
    resource: of?.resource ?? '',
    subresource: of?.subresource ?? '',
    namespace: of?.namespace ?? '',
    name: of?.name ?? '',
    path: url?.path ?? '',
    ...(of?.fieldSelector ? { fieldSelector: selectorText(of.fieldSelector) } : {}),
  };
}

function selectorText({
  rawSelector,
  requirements,
}: NonNullable<NonNullable<SubjectAccessReviewSpec['resourceAttributes']>['fieldSelector']>): string {
  if (rawSelector) return rawSelector;
  return (requirements ?? [])
    .filter(({ operator, values }) => operator === 'In' && values?.length === 1)
    .map(({ key, values }) => `${key}=${values![0]}`)
    .join(',');
}

function check(
  { metadata, spec = {} }: { readonly metadata?: ObjectMeta; readonly spec?: SubjectAccessReviewSpec },
  { needsSubject, isLocal = false }: { readonly needsSubject: boolean; readonly isLocal?: boolean },
): void {
  const errors: FieldError[] = [];
  const { resourceAttributes, nonResourceAttributes } = spec;
  if (resourceAttributes && nonResourceAttributes)
    errors.push(
      fieldErrors.invalid(
        'spec.nonResourceAttributes',
        nonResourceAttributes,
        'cannot be specified in combination with resourceAttributes',
      ),
    );
  if (!resourceAttributes && !nonResourceAttributes)
    errors.push(
      fieldErrors.invalid(
        'spec.resourceAttributes',
        null,
        'exactly one of nonResourceAttributes or resourceAttributes must be specified',
      ),
    );
  if (needsSubject && !spec.user && !spec.groups?.length)
    errors.push(fieldErrors.invalid('spec.user', spec.user ?? '', 'at least one of user or group must be specified'));
  const { namespace: _n, managedFields: _m, ...set } = metadata ?? ({} as ObjectMeta);
  if (Object.keys(set).length > 0)
    errors.push(fieldErrors.invalid('metadata', set, isLocal ? 'must be empty except for namespace' : 'must be empty'));
  if (errors.length) throw invalid(UNNAMED, '', errors);
}
