#!lua flags=no-writes
-- look: what this Redis says of a sale, in one step, without judging it.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 fields of the book to read (o and q fields), …
--
-- Replies
--   {'missing', now ms, run id of this server}
--   {'ok', now ms, run id of this server, epoch, state, seq, token ('' if none), sound ('1' if the sale was
--    loaded into this server, else '0'), script version, starts ms, ends ms, {product, left, …},
--    number of products with limit and price, intact ('0' if there is no book of this epoch, or no queue
--    with its group, else '1'), {field's value or '', …}}

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local function kind(key) return redis.call('TYPE', key).ok end
-- A key of another type is damage, and holds nothing.
local function is_hash(key) return kind(key) == 'hash' end

local sale = {}
if is_hash(KEYS[1]) then
  sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'seq', 'token', 'version', 'run_id', 'starts_ms',
    'ends_ms')
end

-- The book with its epoch, the queue and its group are there from the load on.
local function is_intact()
  if not is_hash(KEYS[4]) or redis.call('HGET', KEYS[4], 'epoch') ~= sale[1] then return false end
  if kind(KEYS[5]) ~= 'stream' then return false end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[5])) do
    if group[2] == 'drain' then return true end
  end
  return false
end

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not sale[1] then return { 'missing', now, run_id } end

local sound = sale[6] == run_id
local values = {}
if #ARGV > 1 then
  if is_hash(KEYS[4]) then values = redis.call('HMGET', KEYS[4], unpack(ARGV, 2)) end
  for i = 1, #ARGV - 1 do values[i] = values[i] or '' end
end
return {
  'ok', now, run_id, sale[1], sale[2] or '', sale[3] or '0', sale[4] or '', sound and '1' or '0',
  sale[5] or '0', sale[7] or '0', sale[8] or '0', is_hash(KEYS[2]) and redis.call('HGETALL', KEYS[2]) or {},
  is_hash(KEYS[3]) and redis.call('HLEN', KEYS[3]) or 0, is_intact() and '1' or '0', values,
}
