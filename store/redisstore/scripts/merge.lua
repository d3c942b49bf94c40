-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Merges records into the pages that hold their paths.
-- KEYS: meta, index, page...
-- ARGV: name of the inventory, most fields a page may have; then for each page: n, and n times field, record
-- Returns: nil if the inventory is another, or write counter, pages that are gone, pages that would be too full,
-- sizes of the pages written (0 where not), and for what only the client can
-- merge: position in ARGV, current record...
local call, byte, sub, char, floor = redis.call, string.byte, string.sub, string.char, math.floor

-- Strings are compared as numbers here: Lua's own order follows the locale.
local function merge(a, b)
  local af, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16 = byte(a, 1, 17)
  local bf, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16 = byte(b, 1, 17)
  if not a16 or not b16 then return nil end
  local tail = sub(a, 18)
  if tail ~= sub(b, 18) or bit.band(af, 9) ~= bit.band(bf, 9) then
    -- A plain record leaves the claims of one without tags as they are.
    if #b > 17 or bit.band(bf, 9) ~= 0 or bit.band(af, 1) ~= 0 then return nil end
  end
  local al = ((((a1 * 256 + a2) * 256 + a3) * 256 + a4) * 256 + a5) * 256 + a6
  local bl = ((((b1 * 256 + b2) * 256 + b3) * 256 + b4) * 256 + b5) * 256 + b6
  if al == 0 or bl == 0 then return nil end
  local ae = ((((a7 * 256 + a8) * 256 + a9) * 256 + a10) * 256 + a11) * 256 + a12
  local be = ((((b7 * 256 + b8) * 256 + b9) * 256 + b10) * 256 + b11) * 256 + b12
  local h = ((a13 * 256 + a14) * 256 + a15) * 256 + a16 + ((b13 * 256 + b14) * 256 + b15) * 256 + b16
  if h > 4294967295 then h = 4294967295 end
  return char(bit.bor(af, bf)) .. sub(bl > al and b or a, 2, 7) .. sub(be > ae and b or a, 8, 13) ..
    char(floor(h / 16777216), floor(h / 65536) % 256, floor(h / 256) % 256, h % 256) .. tail
end

-- Pages that the index has lost live on, but nobody else would find what is
-- put there.
if call('HGET', KEYS[1], 'inventory') ~= ARGV[1] or call('EXISTS', KEYS[2]) == 0 then return false end
local writes = call('HINCRBY', KEYS[1], 'writes', 1)
local full, at = tonumber(ARGV[2]), 3
local gone, crowded, sizes, clashes = {}, {}, {}, {}
for k = 3, #KEYS do
  local page, n = KEYS[k], tonumber(ARGV[at])
  local size = call('HLEN', page)
  sizes[k - 2] = 0
  if size == 0 then
    gone[#gone + 1] = k - 2
  elseif size + n > full then
    crowded[#crowded + 1] = k - 2
  else
    for i = at + 1, at + 2 * n, 2 do
      local old = call('HGET', page, ARGV[i])
      local new = ARGV[i + 1]
      if old then
        new = merge(old, new)
      else
        size = size + 1
      end
      if new then
        call('HSET', page, ARGV[i], new)
      else
        clashes[#clashes + 1] = i
        clashes[#clashes + 1] = old
      end
    end
    sizes[k - 2] = size
  end
  at = at + 1 + 2 * n
end
return {writes, gone, crowded, sizes, clashes}
