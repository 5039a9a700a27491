#!lua flags=allow-oom
-- purge: removes all keys of a sale that ended a day ago, once its queue is empty.
--
-- The caller has written in PostgreSQL before that the sale is never loaded again.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--
-- Replies
--   {'fenced', why}             nothing was changed: 'missing', 'version', 'epoch', 'run_id', 'loading'
--   {'kept', why}               'window' (it ended less than a day ago) or 'queue' (orders are waiting)
--   {'ok'}                      the sale's keys are gone

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state', 'ends_ms')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end

local time = redis.call('TIME')
if time[1] * 1000 < tonumber(sale[5]) + 24 * 60 * 60 * 1000 then return { 'kept', 'window' } end
if redis.call('XLEN', KEYS[5]) > 0 then return { 'kept', 'queue' } end
redis.call('UNLINK', unpack(KEYS))
return { 'ok' }
