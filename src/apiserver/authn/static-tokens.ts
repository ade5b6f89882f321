/** The file of `--token-auth-file`: one line `token,user,uid,"group1,group2"` a token, as upstream reads it. */

import type { UserInfo } from '../request.ts';
import type { TokenAuthenticator } from './token-authenticator.ts';

export function staticTokens(tokens: ReadonlyMap<string, UserInfo>): TokenAuthenticator {
  return {
    verify(token, audiences) {
      const user = tokens.get(token);
      return user && { user, audiences };
    },
  };
}

/** Throws for a line that names no token, user and uid. */
export function parseTokenFile(text: string): Map<string, UserInfo> {
  const tokens = new Map<string, UserInfo>();
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [token = '', name = '', uid, groups = ''] = fieldsOf(line);
    if (!token || !name || uid === undefined)
      throw new Error(`line ${at + 1}: wanted at least 3 columns (token, user name, user uid)`);
    const members = groups
      .split(',')
      .map(group => group.trim())
      .filter(Boolean);
    tokens.set(token, { name, groups: members, ...(uid ? { uid } : {}) });
  }
  return tokens;
}

function fieldsOf(line: string): string[] {
  return [...line.matchAll(/(?:^|,)\s*(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
    quoted === undefined ? (plain ?? '').trim() : quoted.replaceAll('""', '"'),
  );
}
