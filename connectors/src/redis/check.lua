-- A server puts into groups of a view from now on, over a connection that is new: who began earlier does not any more.
-- KEYS: their marks. ARGV: the layout, the epoch; then for each mark the greatest version that it is known to have taken.
-- Answers 1; 0 where a group is not there, or not in the Redis that it was filled in; the negative epoch of a later server.
local run, info = '', redis.pcall('INFO', 'server')
if type(info) == 'string' then run = string.match(info, 'run_id:(%w+)') or '' end
local own = tonumber(ARGV[2])
for k = 1, #KEYS do
  local mark = redis.call('HMGET', KEYS[k], 'layout', 'epoch', 'newest', 'run')
  if mark[1] ~= ARGV[1] or mark[4] ~= run then return 0 end
  local epoch, counter = struct.unpack('>I4I6', mark[3] or string.rep('\0', 10))
  local known_epoch, known_counter = struct.unpack('>I4I6', ARGV[k + 2])
  if known_epoch > epoch or (known_epoch == epoch and known_counter > counter) then return 0 end
  local seen = tonumber(mark[2] or '0')
  if seen > own then return -seen end
  if seen < own then redis.call('HSET', KEYS[k], 'epoch', ARGV[2]) end
end
return 1
