/** Names of signers, `domain/path`: the rule that certificate requests, trust bundles and volumes share. */

import { addInvalid, type Errors, requireText } from '../machinery/validation.ts';

export function checkSignerName(errors: Errors, path: string, name: string | undefined): void {
  if (requireText(errors, path, name) && !/^[^/]+\.[^/]+\/.+$/.test(name))
    addInvalid(errors, path, name, 'must be a fully qualified domain and path of the form "example.com/signer-name"');
}
