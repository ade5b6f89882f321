/**
 * What HAProxy cannot say in its own language, as one Lua file: passwords hashed by htpasswd's own methods, and a question to
 * another server before a request goes on, a copy of a request for another server, another backend's page in the place of an error. It keeps no state but a bounded memory of passwords that
 * were right. A body that is larger than HAProxy's buffer, or late, is not copied at all rather than in part.
 */

/** Where HAProxy asks itself for the page of an error. */
export const ERROR_SOCKET = 'errors.sock';
/** Whose page, and of what it is. */
export const FAILED_BACKEND = 'x-cox-backend';

/** `copied`: a message's headers in the form that a message to be sent has them, without those of a connection. */
export const COPIED_HEADERS_LUA = `
local HOP = { connection = true, ["content-length"] = true, ["transfer-encoding"] = true, upgrade = true, expect = true,
  te = true, trailer = true, ["proxy-connection"] = true, ["keep-alive"] = true }

local function copied(all)
  local headers = {}
  for name, values in pairs(all) do
    if not HOP[name] then
      local list = {}
      for at, value in pairs(values) do list[at + 1] = value end
      headers[name] = list
    end
  end
  return headers
end
`;

export const LUA_SOURCE = `
local KNOWN_MAX = 1000
local known, known_count = {}, 0
local LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

local function to64(value, count)
  local out = {}
  for i = 1, count do
    out[i] = LETTERS:sub(value % 64 + 1, value % 64 + 1)
    value = value // 64
  end
  return table.concat(out)
end

-- Apache's variant of the MD5 password, as htpasswd makes it.
local function apr1(md5, password, salt)
  local length = #password
  local final = md5(password .. salt .. password)
  local text = { password, "$apr1$", salt }
  for left = length, 1, -16 do text[#text + 1] = final:sub(1, math.min(16, left)) end
  local bits = length
  while bits > 0 do
    text[#text + 1] = bits % 2 == 1 and "\\0" or password:sub(1, 1)
    bits = bits // 2
  end
  final = md5(table.concat(text))
  for i = 0, 999 do
    final = md5((i % 2 == 1 and password or final) .. (i % 3 ~= 0 and salt or "") .. (i % 7 ~= 0 and password or "")
      .. (i % 2 == 1 and final or password))
  end
  local b = { final:byte(1, 16) }
  local function three(x, y, z) return to64((b[x] << 16) | (b[y] << 8) | b[z], 4) end
  return "$apr1$" .. salt .. "$" .. three(1, 7, 13) .. three(2, 8, 14) .. three(3, 9, 15) .. three(4, 10, 16)
    .. three(5, 11, 6) .. to64(b[12], 2)
end

local function matches(txn, password, hash)
  local salt = hash:match("^%$apr1%$([^$]*)%$")
  if salt then
    return apr1(function(text) return txn.c:digest(text, "md5") end, password, salt:sub(1, 8)) == hash
  end
  if hash:sub(1, 5) == "{SHA}" then return txn.c:base64(txn.c:sha1(password)) == hash:sub(6) end
  return false
end

core.register_action("check-password", { "http-req" }, function(txn)
  local password, hash = txn:get_var("txn.password"), txn:get_var("txn.hash")
  if not password or not hash then return end
  local key = txn.c:sha2(hash .. "\\0" .. password)
  if not known[key] then
    if not matches(txn, password, hash) then return end
    if known_count >= KNOWN_MAX then known, known_count = {}, 0 end
    known[key] = true
    known_count = known_count + 1
  end
  txn:set_var("txn.admitted", true)
end)

${COPIED_HEADERS_LUA}
-- Sets txn.auth_status to 200, 401, 403 or 503.
core.register_action("external-auth", { "http-req" }, function(txn, url, method, wanted, told)
  local headers = copied(txn.http:req_get_headers())
  local host = txn.f:req_hdr("host") or ""
  headers["host"] = { url:match("^https?://([^/]+)") }
  headers["x-original-url"] = { (txn.f:ssl_fc() == 1 and "https" or "http") .. "://" .. host .. (txn.f:pathq() or "/") }
  headers["x-original-method"] = { txn.f:method() }
  headers["x-auth-request-redirect"] = { txn.f:pathq() or "/" }
  headers["x-sent-from"] = { "coxswain-ingress" }
  for name, hex in told:gmatch("([%w-]+):(%x+)") do
    headers[name:lower()] = { (hex:gsub("..", function(byte) return string.char(tonumber(byte, 16)) end)) }
  end
  local client = core.httpclient()
  local call = { GET = client.get, HEAD = client.head, POST = client.post }
  local fine, response = pcall(call[method], client, { url = url, headers = headers, timeout = 5000 })
  local status = fine and response and response.status or 0
  if status >= 200 and status < 300 then
    if wanted ~= "-" then
      for name in wanted:gmatch("[^,]+") do
        local values = response.headers and response.headers[name:lower()]
        txn.http:req_del_header(name)
        if values then for _, value in pairs(values) do txn.http:req_add_header(name, value) end end
      end
    end
    txn:set_var("txn.auth_status", 200)
  elseif status == 401 or status == 403 then
    txn:set_var("txn.auth_status", status)
  else
    txn:set_var("txn.auth_status", 503)
  end
end, 4)

local METHODS = { GET = "get", HEAD = "head", PUT = "put", POST = "post", DELETE = "delete" }
local COPIES_MAX = 1000
local copies = 0

-- txn.mirror is where to.
core.register_action("mirror", { "http-req" }, function(txn, host, what)
  local method, url = METHODS[txn.f:method()], txn:get_var("txn.mirror")
  if not method or not url or copies >= COPIES_MAX then return end
  local body
  if what == "body" then
    body = txn.f:req_body() or ""
    if #body < (tonumber(txn.f:req_hdr("content-length") or "0") or 0) then return end
    if txn.f:req_hdr("transfer-encoding") and txn.f:req_body_len() < txn.f:req_body_size() then return end
  end
  local headers = copied(txn.http:req_get_headers())
  headers["host"] = { host }
  local call = { url = url, headers = headers, timeout = 10000 }
  if body and #body > 0 then call.body = body end
  copies = copies + 1
  core.register_task(function()
    local client = core.httpclient()
    pcall(client[method], client, call)
    copies = copies - 1
  end)
end, 2)

-- The answer stays as it is where HAProxy does not even answer itself.
core.register_action("error-page", { "http-res" }, function(txn, namespace, ingress, service, port)
  local status = txn.f:status()
  local headers = { host = { "errors" }, ["${FAILED_BACKEND}"] = { txn.f:be_name() }, ["x-code"] = { tostring(status) },
    ["x-format"] = { txn:get_var("txn.accept") or "" }, ["x-original-uri"] = { txn:get_var("txn.uri") or "/" },
    ["x-namespace"] = { namespace }, ["x-ingress-name"] = { ingress }, ["x-service-name"] = { service },
    ["x-service-port"] = { port }, ["x-request-id"] = { txn:get_var("txn.request") or "" } }
  local client = core.httpclient()
  local fine, response = pcall(client.get, client,
    { url = "http://errors/", headers = headers, dst = "unix@${ERROR_SOCKET}", timeout = 5000 })
  if not fine or not response or not response.status or response.status < 200 then return end
  local own = copied(response.headers or {})
  own["content-length"] = { tostring(#(response.body or "")) }
  txn:done(txn:reply({ status = response.status, headers = own, body = response.body or "" }))
end, 4)
`;
