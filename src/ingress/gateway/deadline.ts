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

export const DEADLINE_LUA = 'deadline.lua';
export const DEADLINE_LUA_SOURCE = `
local Deadline = { id = "deadline", flags = filter.FLT_CFG_FL_HTX }
Deadline.__index = Deadline

local function milliseconds()
  local time = core.now()
  return time.sec * 1000 + time.usec // 1000
end

function Deadline:new()
  return setmetatable({ over = milliseconds() + self.allowed }, Deadline)
end

function Deadline:http_headers(txn, message)
  if not message:is_resp() or tostring(message:get_stline().code) == "101" then return end
  filter.register_data_filter(self, message.channel)
  filter.wake_time(math.max(1, self.over - milliseconds()))
end

function Deadline:http_payload(txn, message)
  local left = self.over - milliseconds()
  if left <= 0 then txn:done() else filter.wake_time(left) end
end

core.register_filter("deadline", Deadline, function(self, args)
  self.allowed = tonumber(args[1])
  return self
end)
`;
