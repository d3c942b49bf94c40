-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Replaces a page by several that share its range. Pages never change their
-- range: whoever knows one that still exists knows what it covers.
-- KEYS: index, old page, new page...
-- ARGV: old member, bytes that all fields of its range begin with, then for each new page: first field, member
-- Returns: 1, 0 if the page is gone, -1 if the index has lost it
local call, byte, min = redis.call, string.byte, math.min

-- Lua's own order of strings follows the locale.
local function below(a, b)
  for i = 1, min(#a, #b), 32 do
    if string.sub(a, i, i + 31) ~= string.sub(b, i, i + 31) then
      for j = i, min(#a, #b, i + 31) do
        local x, y = byte(a, j), byte(b, j)
        if x ~= y then return x < y end
      end
    end
  end
  return #a < #b
end

-- The six bytes after those that all have in common, as a number, nearly always
-- decide.
local skip = tonumber(ARGV[2])
local function window(s)
  local a, b, c, d, e, f = byte(s, skip + 1, skip + 6)
  return ((((((a or -1) + 1) * 257 + (b or -1) + 1) * 257 + (c or -1) + 1) * 257 + (d or -1) + 1) * 257 + (e or -1) + 1) * 257 + (f or -1) + 1
end

local all = call('HGETALL', KEYS[2])
if #all == 0 then return 0 end
if not call('ZSCORE', KEYS[1], ARGV[1]) then return -1 end
local n = #KEYS - 2
local parts, firsts = {}, {}
for p = 1, n do
  parts[p] = {'', ''}
  firsts[p] = window(ARGV[2 * p + 1])
end
for i = 1, #all, 2 do
  local field = all[i]
  if field ~= '' then
    local p, w = n, window(field)
    while p > 1 and (w < firsts[p] or w == firsts[p] and below(field, ARGV[2 * p + 1])) do p = p - 1 end
    local part = parts[p]
    part[#part + 1] = field
    part[#part + 1] = all[i + 1]
  end
end
for p = 1, n do
  call('HSET', KEYS[2 + p], unpack(parts[p]))
  call('ZADD', KEYS[1], 0, ARGV[2 * p + 2])
end
call('ZREM', KEYS[1], ARGV[1])
call('UNLINK', KEYS[2])
return 1
