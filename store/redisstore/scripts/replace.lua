-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Replaces or removes records that are still as they were seen.
-- KEYS: meta, index, page
-- ARGV: name of the inventory (empty: any), repeated: field, record seen, new record (empty: remove)
-- Returns: nil if the inventory is another, or write counter, size of the page (0: gone), how many were replaced,
-- positions in ARGV of those that had changed
local call = redis.call
if ARGV[1] ~= '' and (call('HGET', KEYS[1], 'inventory') ~= ARGV[1] or call('EXISTS', KEYS[2]) == 0) then return false end
local done, changed, grows = 0, {}, 0
for i = 4, #ARGV, 3 do
  if ARGV[i] ~= '' then grows = 1 end
end
-- Removing has to work when memory is short, and counting would not.
local writes
if grows == 1 then
  writes = call('HINCRBY', KEYS[1], 'writes', 1)
else
  writes = tonumber(call('HGET', KEYS[1], 'writes') or 0)
end
for i = 2, #ARGV, 3 do
  if call('HGET', KEYS[3], ARGV[i]) ~= ARGV[i + 1] then
    changed[#changed + 1] = i
  else
    if ARGV[i + 2] == '' then
      call('HDEL', KEYS[3], ARGV[i])
    else
      call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
    end
    done = done + 1
  end
end
return {writes, call('HLEN', KEYS[3]), done, changed}
