-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Replaces or removes records that are still as they were seen.
-- KEYS: meta, page
-- ARGV: repeated: field, record seen, new record (empty: remove)
-- Returns: write counter, size of the page (0: gone), how many were replaced,
-- positions in ARGV of those that had changed
local call = redis.call
local done, changed, grows = 0, {}, 0
for i = 3, #ARGV, 3 do
  if ARGV[i] ~= '' then grows = 1 end
end
-- Removing has to work when memory is short, and counting would not.
local writes
if grows == 1 then
  writes = call('HINCRBY', KEYS[1], 'writes', 1)
else
  writes = tonumber(call('HGET', KEYS[1], 'writes') or 0)
end
for i = 1, #ARGV, 3 do
  if call('HGET', KEYS[2], ARGV[i]) ~= ARGV[i + 1] then
    changed[#changed + 1] = i
  else
    if ARGV[i + 2] == '' then
      call('HDEL', KEYS[2], ARGV[i])
    else
      call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
    end
    done = done + 1
  end
end
return {writes, call('HLEN', KEYS[2]), done, changed}
