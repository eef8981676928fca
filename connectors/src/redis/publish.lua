-- The catalog, for serving nodes: who owns it, what it has, and how far the owner is; docs/redis-layout.md has the fields.
-- KEYS: the catalog. ARGV: the owner; the epoch; the edition; the document, or '' where it is to be there; then names
-- of fields and their numbers, which never go back.
-- Answers 1; 0 where the document is not there; the negative epoch of a later server; the name of another owner.
local had = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'edition')
if had[1] and had[1] ~= ARGV[1] then return had[1] end
local own, seen = tonumber(ARGV[2]), tonumber(had[2] or '0')
if seen > own then return -seen end
-- What was on its way before a later document comes too late.
if seen == own and tonumber(had[3] or '0') > tonumber(ARGV[3]) then return 1 end
if ARGV[4] == '' then
  if seen < own or had[3] ~= ARGV[3] or redis.call('HEXISTS', KEYS[1], 'catalog') == 0 then return 0 end
else
  -- Numbers of views that are no more, and of an earlier server, go with it.
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'layout', '1', 'owner', ARGV[1], 'epoch', ARGV[2], 'edition', ARGV[3])
  redis.call('HSET', KEYS[1], 'catalog', ARGV[4])
end
for i = 5, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or tonumber(known) < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
