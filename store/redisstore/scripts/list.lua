-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Reads documents in order.
-- KEYS: meta, documents, keys
-- ARGV: lexicographic minimum, maximum, most documents, bytes to stop after
-- Returns: write counter, version, 1 if documents were lost, 1 if there is more, then key, document...
local call = redis.call
local meta = call('HMGET', KEYS[1], 'writes', 'version', 'documents')
local count = call('ZCARD', KEYS[3])
local lost = 0
if count ~= call('HLEN', KEYS[2]) or count ~= tonumber(meta[3] or 0) then lost = 1 end
local limit, bytes = tonumber(ARGV[3]), 0
local keys = call('ZRANGEBYLEX', KEYS[3], ARGV[1], ARGV[2], 'LIMIT', 0, limit + 1)
local out = {tonumber(meta[1] or 0), meta[2] or '', lost, 0}
for i, key in ipairs(keys) do
  if i > limit or bytes > tonumber(ARGV[4]) then
    out[4] = 1
    break
  end
  local document = call('HGET', KEYS[2], key)
  if document then
    out[#out + 1] = key
    out[#out + 1] = document
    bytes = bytes + #document
  end
end
return out
