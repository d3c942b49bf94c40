-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Puts an empty page in the place of one that the index names and that is lost.
-- KEYS: index, page
-- ARGV: the page's member of the index
-- Returns: 1 if it was lost
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) or call('EXISTS', KEYS[2]) == 1 then return 0 end
call('HSET', KEYS[2], '', '')
return 1
