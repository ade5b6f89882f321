import assert from 'node:assert/strict';
import test from 'node:test';
import { checkAuthorities, REQUEST_HEADER_DEFAULTS } from './request-header.ts';

test('an authority of users vouches for named proxies only', () => {
  const pem = (body: string) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;
  const anybody = { ...REQUEST_HEADER_DEFAULTS, allowedNames: [] };
  const shared = { users: pem('QUJD'), proxies: `# of both\n${pem('WFla')}${pem('QU\nJD')}` };
  assert.throws(() => checkAuthorities(anybody, shared), /contain overlapping certificates/);
  checkAuthorities(REQUEST_HEADER_DEFAULTS, shared);
  checkAuthorities(anybody, { users: pem('QUJD'), proxies: pem('WFla') });
});
