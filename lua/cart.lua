#!lua
-- cart: sets how many units of a product a buyer's cart holds, and says what it holds then. It reserves nothing.
--
-- KEYS  1 the cart: hash, product -> quantity and currency ('2:USD')
-- ARGV  1 how long the cart is kept from now on, in ms
--       2 product  3 quantity  4 currency  5 the most products that a cart holds
--
-- Replies
--   {'full'}                                it holds as many other products; nothing was changed
--   {'other_currency'}                      it holds a product of another currency; nothing was changed
--   {'ok', now ms, {product, line, …}}      set, and all that it holds
--
-- A cart has one currency, because its total is one number. A key of another type is an empty cart, and gives
-- way to a right one. It may be carried out twice.

local product, quantity, currency = ARGV[2], ARGV[3], ARGV[4]
if not (#quantity < 6 and string.find(quantity, '^[1-9]%d*$') and string.find(currency, '^%u%u%u$')) then
  return redis.error_reply('INVALID line of product ' .. product)
end
local kind = redis.call('TYPE', KEYS[1]).ok
local damaged = kind ~= 'hash' and kind ~= 'none'
local lines, others = damaged and {} or redis.call('HGETALL', KEYS[1]), 0
for i = 1, #lines, 2 do
  if lines[i] ~= product then
    if string.match(lines[i + 1], '^%d+:(%u%u%u)$') ~= currency then return { 'other_currency' } end
    others = others + 1
  end
end
if others >= tonumber(ARGV[5]) then return { 'full' } end

if damaged then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], product, quantity .. ':' .. currency)
redis.call('PEXPIRE', KEYS[1], ARGV[1])

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return { 'ok', now, redis.call('HGETALL', KEYS[1]) }
