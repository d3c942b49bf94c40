-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Creates the first page of an inventory that has none.
-- KEYS: meta, index, page
-- ARGV: the page's member of the index
-- Returns: 1 if there had been an inventory (it was lost), else 0
local call = redis.call
if call('EXISTS', KEYS[2]) == 1 then return 0 end
local first = call('HSETNX', KEYS[1], 'inventory', '1')
call('HSET', KEYS[3], '', '')
call('ZADD', KEYS[2], 0, ARGV[1])
return 1 - first
