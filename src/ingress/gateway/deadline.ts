/**
 * The time that a request may take, to the end of its response: HAProxy's own timeouts begin anew with each byte, so a filter in Lua is woken
 * when the time is over and cuts off what still comes. It bounds no connection that was upgraded, and does not see a backend that is silent from
 * the start: that is the timeout's, which answers 504.
 */

import type { Line } from '../haproxy/configuration.ts';
import type { Backend } from './route-rules.ts';

export function deadlineLines({ deadlineMs }: Pick<Backend, 'deadlineMs'>): Line[] {
  return deadlineMs === undefined ? [] : [['filter', 'lua.deadline', String(deadlineMs)]];
}

export const DEADLINE_LUA = `
local Deadline = { id = "deadline", flags = filter.FLT_CFG_FL_HTX }
Deadline.__index = Deadline

local function milliseconds()
  local time = core.now()
  return time.sec * 1000 + time.usec // 1000
end

function Deadline:new()
  return setmetatable({ allowed = self.allowed }, Deadline)
end

function Deadline:start_analyze(txn, channel)
  self.over = self.over or milliseconds() + self.allowed
  if channel:is_resp() then
    filter.register_data_filter(self, channel)
    filter.wake_time(math.max(1, self.over - milliseconds()))
  end
end

function Deadline:http_headers(txn, message)
  if message:is_resp() and tostring(message:get_stline().code) == "101" then
    self.upgraded = true
    filter.unregister_data_filter(self, message.channel)
  end
end

function Deadline:http_payload(txn, message)
  if self.upgraded then return end
  local left = self.over - milliseconds()
  if left <= 0 then txn:done() else filter.wake_time(left) end
end

core.register_filter("deadline", Deadline, function(self, args)
  self.allowed = tonumber(args[1])
  return self
end)
`;
