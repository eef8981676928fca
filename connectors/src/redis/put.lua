-- Puts values into one group of a view; of a key that has a newer one, that stays.
-- KEYS: the mark; buckets; in the layout "hash" the entity of each value, in the order of the values.
-- ARGV: the layout; the epoch; three versions in one: the greatest that the group is known to have taken, the least and the
-- greatest of this call; how many buckets; then for every bucket how many values, and their fields and values; in the layout
-- "hash" after each value what its entity shows, as a JSON array of names and texts.
-- Answers 1; 0 where the group is not there, or has less than it had; the negative epoch of a later server.
-- Two calls a bucket, since a call costs as much as several values; numbers of up to 53 bits are exact in Lua.
local mark = redis.call('HMGET', KEYS[1], 'layout', 'epoch', 'newest', 'floor')
if mark[1] ~= ARGV[1] then return 0 end
local own, seen = tonumber(ARGV[2]), tonumber(mark[2] or '0')
if seen > own then return -seen end
local unpacked, none = struct.unpack, string.rep('\0', 10)
local function is_newer(e, c, than_e, than_c) return e > than_e or (e == than_e and c > than_c) end
local known_e, known_c, least_e, least_c, greatest_e, greatest_c = unpacked('>I4I6I4I6I4I6', ARGV[3])
local newest_e, newest_c = unpacked('>I4I6', mark[3] or none)
if is_newer(known_e, known_c, newest_e, newest_c) then return 0 end
if is_newer(greatest_e, greatest_c, newest_e, newest_c) then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'newest', string.sub(ARGV[3], 21, 30))
elseif seen < own then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
end
-- What was on its way before the group was last filled comes too late: its key may have been removed since.
local floor_e, floor_c = unpacked('>I4I6', mark[4] or none)
local has_late = is_newer(floor_e, floor_c, least_e, least_c)
local buckets, at, entity = tonumber(ARGV[4]), 5, 0
local each = #KEYS > 1 + buckets and 3 or 2
for k = 2, 1 + buckets do
  local count, fields, newer = tonumber(ARGV[at]), {}, {}
  for i = 1, count do fields[i] = ARGV[at + each * (i - 1) + 1] end
  local known = redis.call('HMGET', KEYS[k], unpack(fields))
  for i = 1, count do
    local value, is_kept = ARGV[at + each * (i - 1) + 2], true
    entity = entity + 1
    if known[i] or has_late then
      local e, c = unpacked('>I4I6', value)
      is_kept = not has_late or not is_newer(floor_e, floor_c, e, c)
      if known[i] and is_kept then
        local epoch, counter = unpacked('>I4I6', known[i])
        is_kept = is_newer(e, c, epoch, counter)
      end
    end
    if is_kept then
      newer[#newer + 1] = fields[i]
      newer[#newer + 1] = value
      if each == 3 then
        local key, shown = KEYS[1 + buckets + entity], cjson.decode(ARGV[at + each * i])
        redis.call('DEL', key)
        if #shown > 0 then redis.call('HSET', key, unpack(shown)) end
      end
    end
  end
  if #newer > 0 then redis.call('HSET', KEYS[k], unpack(newer)) end
  at = at + each * count + 1
end
return 1
