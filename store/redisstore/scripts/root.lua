-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Reads the epoch, and makes a new one if there is none or the known one is over.
-- KEYS: root
-- ARGV: new epoch, epoch that is over (or empty), a distribution's field
-- Returns: epoch, 1 if the distribution is known to have data
local call = redis.call
local epoch = call('HGET', KEYS[1], 'epoch')
if not epoch or epoch == ARGV[2] then
  epoch = ARGV[1]
  call('HSET', KEYS[1], 'epoch', epoch)
end
return {epoch, call('HEXISTS', KEYS[1], ARGV[3])}
