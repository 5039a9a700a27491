#!lua flags=allow-oom
-- state: carries what PostgreSQL says of a sale (its state and its window) to Redis.
--
-- allow-oom: pausing a sale must work on a full Redis.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch  3 state ('open' | 'paused' | 'closed')  4 starts ms  5 ends ms
--
-- Replies
--   {'fenced', why}     nothing was changed: 'missing', 'version', 'epoch', 'run_id', 'loading'
--   {'ok'}              Redis says the same now

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end

redis.call('HSET', KEYS[1], 'state', ARGV[3], 'starts_ms', ARGV[4], 'ends_ms', ARGV[5])
return { 'ok' }
