-- Opens groups of a view and says what they have. docs/redis-layout.md has the mark field by field.
-- KEYS: their marks. ARGV: the layout; then for each the greatest version that it is known to have taken.
-- Answers for each the layout that it was made with, where that is another one; else whether it has all of its values (1 or
-- 0), and the greatest version that it has taken.
local run, info = '', redis.pcall('INFO', 'server')
if type(info) == 'string' then run = string.match(info, 'run_id:(%w+)') or '' end
local answers = {}
for k = 1, #KEYS do
  local mark = redis.call('HMGET', KEYS[k], 'layout', 'newest', 'filled', 'run')
  if mark[1] and mark[1] ~= ARGV[1] then
    answers[k] = mark[1]
  else
    local newest = mark[2] or string.rep('\0', 10)
    local epoch, counter = struct.unpack('>I4I6', newest)
    local known_epoch, known_counter = struct.unpack('>I4I6', ARGV[k + 1])
    local has_less = known_epoch > epoch or (known_epoch == epoch and known_counter > counter)
    -- Of a Redis that has been restarted, or has taken over, nobody knows how much it had.
    if mark[3] and mark[4] == run and not has_less then
      answers[k] = {1, newest}
    else
      redis.call('HSET', KEYS[k], 'layout', ARGV[1], 'run', run)
      redis.call('HDEL', KEYS[k], 'filled')
      answers[k] = {0, newest}
    end
  end
end
return answers
