/**
 * ConfigMaps of files as a program in Lua that serves them, so that they are there without the agent: a request's last path element is the
 * key, `index.html` where there is none. Every byte of a tenant is written as a number, so nothing of it is ever read as Lua.
 */

import type { ConfigMap } from '../../api/core/v1.gen.ts';
import { keyOf } from '../../api/meta.ts';

const TYPES: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  gif: 'image/gif',
  html: 'text/html; charset=utf-8',
  ico: 'image/vnd.microsoft.icon',
  jpg: 'image/jpeg',
  js: 'text/javascript; charset=utf-8',
  json: 'application/json',
  pdf: 'application/pdf',
  png: 'image/png',
  svg: 'image/svg+xml',
  txt: 'text/plain; charset=utf-8',
  wasm: 'application/wasm',
  webp: 'image/webp',
  xml: 'application/xml',
};
const OTHER = 'application/octet-stream';

const LUA = `
core.register_service("content", "http", function(applet)
  local files = content[applet:get_var("txn.content")] or {}
  local name = applet.path:match("[^/]*$")
  local file = files[name == "" and "index.html" or name]
  local status, text = 200, file and file[2]
  if applet.method ~= "GET" and applet.method ~= "HEAD" then status, text = 405, "only GET and HEAD\\n"
  elseif not file then status, text = 404, "no such file\\n" end
  applet:set_status(status)
  if status == 405 then applet:add_header("allow", "GET, HEAD") end
  applet:add_header("content-length", tostring(#text))
  applet:add_header("content-type", status == 200 and file[1] or "text/plain; charset=utf-8")
  applet:start_response()
  if applet.method ~= "HEAD" then applet:send(text) end
end)
`;

/** The same for the same objects, in whatever order. */
export function contentSource(configMaps: Iterable<ConfigMap>): string {
  const tables = [...configMaps].map(configMap => {
    const files = [
      ...Object.entries(configMap.data ?? {}).map(([name, text]) => [name, Buffer.from(text)] as const),
      ...Object.entries(configMap.binaryData ?? {}).map(([name, text]) => [name, Buffer.from(text, 'base64')] as const),
    ].sort(([a], [b]) => (a < b ? -1 : 1));
    const entries = files.map(([name, bytes]) => {
      const type = TYPES[name.split('.').at(-1)!.toLowerCase()] ?? OTHER;
      return `[${text(name)}] = { ${text(type)}, ${text(bytes)} }`;
    });
    return `[${text(keyOf(configMap))}] = {\n${entries.join(',\n')}\n}`;
  });
  return `local content = {\n${tables.sort().join(',\n')}\n}\n${LUA}`;
}

/** A string of Lua: letters and digits as themselves, other bytes by their number. */
function text(value: string | Buffer): string {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return `"${bytes.toString('latin1').replace(/[^A-Za-z0-9 ]/g, byte => `\\${String(byte.charCodeAt(0)).padStart(3, '0')}`)}"`;
}
