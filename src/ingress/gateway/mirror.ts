/**
 * Mirroring: HAProxy cannot send a request twice, so a Lua action hands a copy to a frontend of the same HAProxy on a socket of its own,
 * which sends it to a backend, and does not wait for the answer. A body that is larger than HAProxy's buffer, or late, is not
 * mirrored at all rather than in part.
 */

import type { Section } from '../haproxy/configuration.ts';
import { COPIED_HEADERS_LUA } from '../haproxy/lua.ts';
import { lines, words } from '../haproxy/process-sections.ts';

export const MIRROR_LUA = 'mirror.lua';
export const MIRROR_MAP = 'mirrors.map';
const SOCKET = 'mirror.sock';

export function mirrorFrontend(): Section {
  return {
    type: 'frontend',
    name: 'mirror',
    lines: [
      ['bind', `unix@${SOCKET}`, 'mode', '600'],
      ...lines(
        `http-request set-var(txn.to) req.hdr(x-cox-mirror),map_str(${MIRROR_MAP})`,
        'http-request set-method %[req.hdr(x-cox-method)]',
        'http-request del-header x-cox- -m beg',
      ),
      words('use_backend %[var(txn.to)] if { var(txn.to) -m found }'),
      words('default_backend not-found'),
    ],
  };
}

export const MIRROR_LUA_SOURCE = `
${COPIED_HEADERS_LUA}
local WAITING_MAX = 1000
local waiting = 0

core.register_action("mirror", { "http-req" }, function(txn, to)
  if waiting >= WAITING_MAX then return end
  local length = tonumber(txn.f:req_hdr("content-length") or "0") or 0
  local chunked = txn.f:req_hdr("transfer-encoding")
  local body = txn.f:req_body() or ""
  if #body < length then return end
  if chunked and txn.f:req_body_size() and txn.f:req_body_len() < txn.f:req_body_size() then return end
  local headers = copied(txn.http:req_get_headers())
  headers["x-cox-mirror"] = { to }
  headers["x-cox-method"] = { txn.f:method() }
  local url = "http://mirror" .. (txn.f:pathq() or "/")
  waiting = waiting + 1
  core.register_task(function()
    local client = core.httpclient()
    local call = { url = url, headers = headers, dst = "unix@${SOCKET}", timeout = 10000 }
    if #body > 0 then
      call.body = body
      pcall(client.post, client, call)
    else
      pcall(client.get, client, call)
    end
    waiting = waiting - 1
  end)
end, 1)
`;
