-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Replaces two small neighbouring pages by one.
-- KEYS: index, left page, right page, new page
-- ARGV: left member, right member, new member, most fields the new page may have
-- Returns: 1 if it did
local call = redis.call
local left, right = call('HLEN', KEYS[2]), call('HLEN', KEYS[3])
if left == 0 or right == 0 or left + right > tonumber(ARGV[4]) then return 0 end
local at = call('ZRANK', KEYS[1], ARGV[1])
local next = call('ZRANK', KEYS[1], ARGV[2])
if not at or not next or next ~= at + 1 then return 0 end
local all = call('HGETALL', KEYS[3])
call('UNLINK', KEYS[3])
call('RENAME', KEYS[2], KEYS[4])
call('HSET', KEYS[4], unpack(all))
call('ZREM', KEYS[1], ARGV[1], ARGV[2])
call('ZADD', KEYS[1], 0, ARGV[3])
return 1
