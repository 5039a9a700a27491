#!lua
-- cart: changes one line of a buyer's cart, and says what the cart holds then. It reserves nothing.
--
-- KEYS  1 the cart: hash, product -> quantity and currency ('2:USD')
-- ARGV  1 how long the cart is kept from now on, in ms
--       2 'set'     3 product  4 quantity  5 currency  6 the most products that a cart holds
--       2 'remove'  3 product
--
-- Replies
--   {'damaged'}                             the key is of another type; nothing was changed
--   {'full'}                                it holds as many other products; nothing was changed
--   {'other_currency'}                      it holds a product of another currency; nothing was changed
--   {'ok', now ms, {product, line, …}}      changed, and all that it holds
--
-- A cart has one currency, because its total is one number. Removing what is not there is no refusal, and
-- restarts the cart's time as every change does. Either change may be carried out twice.

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then return { 'damaged' } end

if ARGV[2] == 'set' then
  local quantity, currency = ARGV[4], ARGV[5]
  if not (#quantity < 6 and string.find(quantity, '^[1-9]%d*$') and string.find(currency, '^%u%u%u$')) then
    return redis.error_reply('INVALID line of product ' .. ARGV[3])
  end
  local lines, others = redis.call('HGETALL', KEYS[1]), 0
  for i = 1, #lines, 2 do
    if lines[i] ~= ARGV[3] then
      if string.match(lines[i + 1], '^%d+:(%u%u%u)$') ~= currency then return { 'other_currency' } end
      others = others + 1
    end
  end
  if others >= tonumber(ARGV[6]) then return { 'full' } end
  redis.call('HSET', KEYS[1], ARGV[3], quantity .. ':' .. currency)
elseif ARGV[2] == 'remove' then
  redis.call('HDEL', KEYS[1], ARGV[3])
else
  return redis.error_reply('INVALID change')
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return { 'ok', now, redis.call('HGETALL', KEYS[1]) }
