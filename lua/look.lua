#!lua flags=no-writes
-- look: what this Redis says of a sale, in one step, without judging it.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 fields of the book to read (o/ and q/ fields), …
--
-- Replies
--   {'missing', now ms}
--   {'ok', now ms, epoch, state, seq, token ('' if none), sound ('1' if the run id is this server's, else
--    '0'), script version, starts ms, ends ms, {product, left, …}, {field's value or '', …}}

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'seq', 'token', 'version', 'run_id', 'starts_ms', 'ends_ms')
if not sale[1] then return { 'missing', now } end

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local sound = sale[6] == run_id
local values = {}
if #ARGV > 1 then
  values = redis.call('HMGET', KEYS[4], unpack(ARGV, 2))
  for i = 1, #values do values[i] = values[i] or '' end
end
return {
  'ok', now, sale[1], sale[2], sale[3] or '0', sale[4] or '', sound and '1' or '0', sale[5] or '0',
  sale[7] or '0', sale[8] or '0',
  redis.call('HGETALL', KEYS[2]), values,
}
