/** The file of `--tracing-config-file` (apiserver.config.k8s.io TracingConfiguration): where spans go, and what upstream refuses in it. */

import { type TracingSettings, tracingEndpoint, tracingProblems } from '../../base/tracing/configuration.ts';
import { Problems, parseDocument } from './document.ts';

const KIND = {
  kind: 'TracingConfiguration',
  apiVersions: ['v1', 'v1beta1', 'v1alpha1'].map(version => `apiserver.config.k8s.io/${version}`),
  shape: { endpoint: 'string', samplingRatePerMillion: 'integer' },
} as const;

/** Rejects with ConfigurationError. */
export async function parseTracingConfiguration(text: string): Promise<TracingSettings> {
  const { endpoint, samplingRatePerMillion } = await parseDocument<{
    endpoint?: string | null;
    samplingRatePerMillion?: number | null;
  }>(text, KIND);
  const settings = {
    ...(typeof endpoint === 'string' ? { endpoint } : {}),
    ...(typeof samplingRatePerMillion === 'number' ? { samplingRatePerMillion } : {}),
  };
  const problems = new Problems();
  for (const { field, value, detail } of tracingProblems(settings)) problems.invalid(field, value, detail);
  problems.throwIfAny();
  tracingEndpoint(settings);
  return settings;
}
