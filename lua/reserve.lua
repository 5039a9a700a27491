#!lua
-- reserve: decides a batch of orders of one sale, one after the other, in one step.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--       3 the highest seq that the caller has seen of this sale
--       4 not-after, in microseconds of this server's clock
--       then per order (at most 128):
--         order id, user, key, fingerprint, request id ('' if none), lines as product:quantity,… (at most 20)
--
-- Replies
--   {'fenced', why}                       nothing was changed: 'missing', 'version', 'epoch', 'run_id',
--                                         'loading', 'book' (of another epoch, or there is none),
--                                         'behind' (its seq is below argument 3), 'product' (one is damaged)
--   {'late', now µs}                      it came after its not-after instant; nothing was changed
--   {'ok', seq, now µs, answer, answer…}  one answer per order, in their order:
--     'admitted'                          stock, quota, key, state and queue entry are written
--     {'replayed', order id}  'key_reused'
--     'closed'  'ended'  'paused'  'not_started'
--     {'unknown_product', product}  {'over_quota', product, limit, held}  {'sold_out', product, left}
--     'id_taken'                          make another order id and ask again
--
-- Redis does not roll back a script that dies half way: everything is read and decided first, in Lua
-- tables through which the orders of a batch see each other's effects; then come only writes that cannot
-- fail. A refused order leaves nothing behind.
--
-- Order ids, keys and fingerprints are packed: 12 bytes; a byte that is no user's, and the key; a byte of version
-- and 8 of hash. Version 0 is of an order of which it is not known any more what it asked for.
--
-- This is what a sale's rate hangs on. An order makes no table of its own, and what orders have in common (most
-- ask for the same thing) is read, checked and written out once in a batch.

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state', 'starts_ms', 'ends_ms', 'seq')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end
if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then return { 'fenced', 'book' } end

local seq = tonumber(sale[7])
if seq < tonumber(ARGV[3]) then return { 'fenced', 'behind' } end

local time = redis.call('TIME')
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- The state of an order that is queued now: a letter and five bytes of milliseconds since 2020.
local queued = 'Q' .. struct.pack('>I5', now_ms - 1577836800000)
if tonumber(now_us) > tonumber(ARGV[4]) then return { 'late', now_us } end

-- The sale's own word on whether it sells now, or nil.
local shut
if sale[4] == 'closed' then shut = 'closed'
elseif now_ms >= tonumber(sale[6]) then shut = 'ended'
elseif sale[4] == 'paused' then shut = 'paused'
elseif now_ms < tonumber(sale[5]) then shut = 'not_started' end

-- Arguments of one order, and where the first order's begin.
local PER_ORDER, FIRST = 6, 5
local args = ARGV
local count = (#args - FIRST + 1) / PER_ORDER
if count < 1 or count > 128 or count % 1 ~= 0 then return redis.error_reply('INVALID number of orders') end

-- A basket is what lines ask for, under their text: orders of the same lines share it. Nil if it is no basket.
local baskets, asked_products, seen = {}, {}, {}
local function basket_of(text)
  local basket, count, read, own = { products = {}, quantities = {} }, 0, 0, {}
  -- tonumber() reads '0x2', 'nan' and '-100' too; a negative quantity would raise stock.
  for line, product, quantity in string.gmatch(text .. ',', '(([1-9]%d*):([1-9]%d?%d?%d?%d?),)') do
    -- A product that is named twice would be judged by each line alone.
    if own[product] then return nil end
    own[product] = true
    count, read = count + 1, read + #line
    basket.products[count], basket.quantities[count] = product, tonumber(quantity)
    if not seen[product] then
      seen[product] = true
      asked_products[#asked_products + 1] = product
    end
  end
  if read ~= #text + 1 or count > 20 then return nil end
  basket.count = count
  baskets[text] = basket
  return basket
end

-- What the batch asks of the book: per order its key, its state, and what the user holds of each product.
local asked, n = {}, 0
for a = FIRST, #args, PER_ORDER do
  local user = args[a + 1]
  local basket = baskets[args[a + 5]] or basket_of(args[a + 5])
  if not basket then return redis.error_reply('INVALID lines of an order of user ' .. user) end
  asked[n + 1] = 'k' .. user .. args[a + 2]
  asked[n + 2] = 'o' .. args[a]
  n = n + 2
  for i = 1, basket.count do
    asked[n + i] = 'q' .. user .. '/' .. basket.products[i]
  end
  n = n + basket.count
end
local found = redis.call('HMGET', KEYS[4], unpack(asked, 1, n))

local left, limit, price, damaged = {}, {}, {}, {}
local stocks = redis.call('HMGET', KEYS[2], unpack(asked_products))
local products = redis.call('HMGET', KEYS[3], unpack(asked_products))
for i, product in ipairs(asked_products) do
  local most, cost = string.match(products[i] or '', '^(%d+):(%d+)$')
  left[product], limit[product], price[product] = tonumber(stocks[i] or ''), tonumber(most or ''), cost
  -- Known to one hash and not to the other, or unreadable: damage, and no answer to a buyer.
  damaged[product] = (stocks[i] or products[i]) and not (left[product] and most)
end
for _, basket in pairs(baskets) do
  local lines = {}
  for i, product in ipairs(basket.products) do
    if damaged[product] then basket.refused = 'damaged' break end
    if not price[product] then basket.refused = { 'unknown_product', product } break end
    lines[i] = string.format('%s:%d:%s', product, basket.quantities[i], price[product])
  end
  basket.lines = table.concat(lines, ',')
end

-- What a known key is answered, of which the book has this.
local function repeated(known, fingerprint)
  if string.sub(known, 13) ~= fingerprint and string.byte(known, 13) ~= 0 then return 'key_reused' end
  return { 'replayed', string.sub(known, 1, 12) }
end

-- What the orders before have changed in the book, and all of it as the arguments of one HSET.
local changed, written, w = {}, {}, 0
local taken = {}
local digit = { [0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' }
local reply, admitted = { 'ok', '', now_us }, {}
-- All in one loop, without a function per order: its variables are at hand here, and looked up there.
n = 0
for a = FIRST, #args, PER_ORDER do
  local basket = baskets[args[a + 5]]
  local count, ids, quantities = basket.count, basket.products, basket.quantities
  local k, o = asked[n + 1], asked[n + 2]
  local known, same_id = changed[k] or found[n + 1], changed[o] or found[n + 2]
  n = n + 2

  local answer = known and repeated(known, args[a + 3]) or shut or basket.refused
  -- Nothing is written yet, so the whole batch can still be refused.
  if answer == 'damaged' then return { 'fenced', 'product' } end
  if not answer then
    for i = 1, count do
      local most, holds = limit[ids[i]], (changed[asked[n + i]] or found[n + i] or 0) + quantities[i]
      if holds > most then answer = { 'over_quota', ids[i], most, holds - quantities[i] } break end
    end
  end
  if not answer then
    for i = 1, count do
      local units = left[ids[i]]
      if units < quantities[i] then answer = { 'sold_out', ids[i], units } break end
    end
  end
  if not answer and same_id then answer = 'id_taken' end

  if not answer then
    answer = 'admitted'
    admitted[#admitted + 1] = a
    local value = args[a] .. args[a + 3]
    changed[k] = value
    changed[o] = queued
    written[w + 1] = k
    written[w + 2] = value
    written[w + 3] = o
    written[w + 4] = queued
    w = w + 4
    for i = 1, count do
      local id, q, quantity = ids[i], asked[n + i], quantities[i]
      local holds = (changed[q] or found[n + i] or 0) + quantity
      changed[q] = holds
      left[id] = left[id] - quantity
      taken[id] = true
      written[w + 1] = q
      written[w + 2] = digit[holds] or string.format('%.0f', holds)
      w = w + 2
    end
  end
  reply[#reply + 1] = answer
  n = n + count
end

if #admitted > 0 then
  -- From here on only writes. The stream comes first: XADD is the one that can still refuse (a stream
  -- whose last id is the highest possible, a key of another type), and then nothing else has happened.
  local tens, unit
  for _, a in ipairs(admitted) do
    seq = seq + 1
    -- A number is written out anew only when its last digit begins again: that costs as much as five arguments.
    unit = seq % 10
    if unit == 0 or not tens then tens = seq < 10 and '' or string.format('%.0f', (seq - unit) / 10) end
    local lines = baskets[args[a + 5]].lines
    if args[a + 4] == '' then
      redis.call('XADD', KEYS[5], '*', 'order', args[a], 'seq', tens .. digit[unit], 'epoch', ARGV[2],
        'user', args[a + 1], 'key', args[a + 2], 'lines', lines)
    else
      redis.call('XADD', KEYS[5], '*', 'order', args[a], 'seq', tens .. digit[unit], 'epoch', ARGV[2],
        'user', args[a + 1], 'key', args[a + 2], 'lines', lines, 'request', args[a + 4])
    end
  end
  redis.call('HSET', KEYS[4], unpack(written, 1, w))
  local stock = {}
  for id in pairs(taken) do
    stock[#stock + 1] = id
    stock[#stock + 1] = string.format('%.0f', left[id])
  end
  redis.call('HSET', KEYS[2], unpack(stock))
  redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
end
reply[2] = string.format('%.0f', seq)
return reply
