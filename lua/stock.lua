#!lua flags=allow-oom
-- stock: one numbered change of a product's stock, by difference, applied once.
--
-- allow-oom: stock must be taken back on a full Redis, too.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch  3 'add' | 'take'  4 number of the change  5 product  6 units
--   'add'   what the record has already: more or (with '-') fewer units, whatever is left; 0 if it was refused
--   'take'  so many units fewer, if so many are left
--
-- Replies
--   {'fenced', why}     nothing was changed: 'missing', 'version', 'epoch', 'run_id', 'loading', 'changes' (the
--                       stock does not say which change it contains, or has no such product)
--   {'applied'}         the stock contains the change, now or already; also one by 0, whatever was meant
--   {'refused'}         it was asked for more than was left: the stock is as it was
--   {'known'}           the stock contains a later change; nothing was changed
--   {'early', number}   the change before this one is missing, the last one is this; nothing was changed
--
-- Change n is applied on top of change n - 1 only: one that comes twice, or late, counts once.

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end

local how, product, text = ARGV[3], ARGV[5], ARGV[6]
-- tonumber() reads '0x2' and 'nan', too.
if not string.match(text, '^%-?%d%d?%d?%d?%d?%d?%d?%d?%d?$') or (how == 'take' and tonumber(text) < 1)
    or (how ~= 'take' and how ~= 'add') then
  return redis.error_reply('INVALID change ' .. how .. ' ' .. text)
end
local stock = redis.call('HMGET', KEYS[2], 'changes', 'outcome', product)
local last, left = tonumber(stock[1] or ''), tonumber(stock[3] or '')
if not last or not left then return { 'fenced', 'changes' } end

local number, units = tonumber(ARGV[4]), tonumber(text)
if number < last then return { 'known' } end
if number == last then return { stock[2] or 'known' } end
if number > last + 1 then return { 'early', stock[1] } end

local outcome = 'applied'
if how == 'take' then
  units = -units
  if left + units < 0 then outcome, units = 'refused', 0 end
end
redis.call('HSET', KEYS[2], product, string.format('%.0f', left + units), 'changes', ARGV[4], 'outcome', outcome)
return { outcome }
