-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Names the inventory, and creates its first page if it has none. The name
-- changes when the index was lost.
-- KEYS: meta, index, page
-- ARGV: the page's member of the index, name for a new inventory
-- Returns: name, 1 if something of what had been there was lost
local call = redis.call
local name = call('HGET', KEYS[1], 'inventory')
if call('EXISTS', KEYS[2]) == 1 then
  if name then return {name, 0} end
  call('HSET', KEYS[1], 'inventory', ARGV[2])
  return {ARGV[2], 1}
end
call('HSET', KEYS[1], 'inventory', ARGV[2])
call('HSET', KEYS[3], '', '')
call('ZADD', KEYS[2], 0, ARGV[1])
return {ARGV[2], name and 1 or 0}
