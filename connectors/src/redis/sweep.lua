-- All values of a group have been put: what is older goes, and after the last buckets the group is filled.
-- KEYS: the mark, then buckets. ARGV: the layout; two versions in one: the greatest that the group is known to have taken,
-- and the first of the filling; what is to be done: 'find' the keys of what is older, 'remove' them, or 'end'.
-- Answers 1, or the keys found; 0 where the group is not there, or has less than it had.
local mark = redis.call('HMGET', KEYS[1], 'layout', 'newest', 'run')
if mark[1] ~= ARGV[1] then return 0 end
local function is_newer(e, c, than_e, than_c) return e > than_e or (e == than_e and c > than_c) end
local known_e, known_c, since_e, since_c = struct.unpack('>I4I6I4I6', ARGV[2])
local newest_e, newest_c = struct.unpack('>I4I6', mark[2] or string.rep('\0', 10))
if is_newer(known_e, known_c, newest_e, newest_c) then return 0 end
-- From here on nothing that is older comes back.
redis.call('HSET', KEYS[1], 'floor', string.sub(ARGV[2], 11, 20))
local found = {}
for k = 2, #KEYS do
  local all = redis.call('HGETALL', KEYS[k])
  for i = 1, #all, 2 do
    local e, c = struct.unpack('>I4I6', all[i + 1])
    if is_newer(since_e, since_c, e, c) then
      found[#found + 1] = all[i]
      if ARGV[3] == 'remove' then redis.call('HDEL', KEYS[k], all[i]) end
    end
  end
end
if ARGV[3] == 'find' then return found end
if ARGV[3] == 'end' then
  local run, info = '', redis.pcall('INFO', 'server')
  if type(info) == 'string' then run = string.match(info, 'run_id:(%w+)') or '' end
  if mark[3] ~= run then return 0 end
  redis.call('HSET', KEYS[1], 'filled', '1')
end
return 1
