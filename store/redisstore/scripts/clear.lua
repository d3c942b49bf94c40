-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Removes records under conditions.
-- KEYS: meta, index, page...
-- ARGV: name of the inventory, for each page: n, and n times field, instant (6 bytes), '1' if only uniform ones
-- Returns: nil if the inventory is another, or write counter, how many were removed, sizes of the pages (0: gone)
local call, byte = redis.call, string.byte

local function number(s, from)
  local a, b, c, d, e, f = byte(s, from, from + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

-- Pages that the index has lost live on, but nobody else would find what is
-- put there.
if call('HGET', KEYS[1], 'inventory') ~= ARGV[1] or call('EXISTS', KEYS[2]) == 0 then return false end
-- HDEL alone would be allowed when memory is short, counting is not: a clear
-- has to work then, for it makes room.
local removed, sizes, at = 0, {}, 2
for k = 3, #KEYS do
  local page, n = KEYS[k], tonumber(ARGV[at])
  for i = at + 1, at + 3 * n, 3 do
    local record = call('HGET', page, ARGV[i])
    if record and #record >= 17 and number(record, 2) < number(ARGV[i + 1], 1) then
      local flags = byte(record, 1)
      if bit.band(flags, 4) == 0 and (ARGV[i + 2] ~= '1' or bit.band(flags, 2) == 0) then
        removed = removed + call('HDEL', page, ARGV[i])
      end
    end
  end
  sizes[k - 2] = call('HLEN', page)
  at = at + 1 + 3 * n
end
return {tonumber(call('HGET', KEYS[1], 'writes') or 0), removed, sizes}
