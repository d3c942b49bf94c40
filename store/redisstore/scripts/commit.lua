-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Applies a transaction.
-- KEYS: meta, documents, keys, transactions
-- ARGV: name of the transaction; n, and n times key, version ('0': none);
-- n, and n times key, value; n, and n keys to delete
-- Returns: write counter, version ('' if a requirement does not hold), 1 if documents were lost
local call, format = redis.call, string.format
local meta = call('HMGET', KEYS[1], 'version', 'documents', 'writes')
-- A client that lost the answer asks again.
local done = call('ZSCORE', KEYS[4], ARGV[1])
if done then return {tonumber(meta[3] or 0), format('%.0f', tonumber(done)), 0} end

local at = 3
for i = 1, tonumber(ARGV[2]) do
  local document = call('HGET', KEYS[2], ARGV[at])
  local version = '0'
  if document then version = string.match(document, '^(%d+):') end
  if version ~= ARGV[at + 1] then return {tonumber(meta[3] or 0), '', 0} end
  at = at + 2
end

local writes = call('HINCRBY', KEYS[1], 'writes', 1)
local count = call('ZCARD', KEYS[3])
local lost = 0
if count ~= call('HLEN', KEYS[2]) or count ~= tonumber(meta[2] or 0) then lost = 1 end
local version = tonumber(meta[1])
if not version then
  -- Versions begin at the time in microseconds, so that they grow even where
  -- the last one was lost.
  local now = call('TIME')
  version = now[1] * 1000000 + now[2]
end
version = format('%.0f', version + 1)
local n = tonumber(ARGV[at])
at = at + 1
for i = 1, n do
  call('HSET', KEYS[2], ARGV[at], version .. ':' .. ARGV[at + 1])
  call('ZADD', KEYS[3], 0, ARGV[at])
  at = at + 2
end
n = tonumber(ARGV[at])
for i = at + 1, at + n do
  call('HDEL', KEYS[2], ARGV[i])
  call('ZREM', KEYS[3], ARGV[i])
end
if lost == 1 then
  -- What is left of one half of them is of no use without the other.
  for _, key in ipairs(call('ZRANGE', KEYS[3], 0, -1)) do
    if call('HEXISTS', KEYS[2], key) == 0 then call('ZREM', KEYS[3], key) end
  end
  for _, key in ipairs(call('HKEYS', KEYS[2])) do
    if not call('ZSCORE', KEYS[3], key) then call('ZADD', KEYS[3], 0, key) end
  end
end
call('HSET', KEYS[1], 'version', version, 'documents', call('ZCARD', KEYS[3]))
call('ZADD', KEYS[4], version, ARGV[1])
call('ZREMRANGEBYRANK', KEYS[4], 0, -1001)
return {writes, version, lost}
