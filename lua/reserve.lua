#!lua
-- reserve: decides a batch of orders of one sale, one after the other, in one step.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--       3 the highest seq that the caller has seen of this sale
--       4 not-after, in microseconds of this server's clock
--       then per order (at most 128, of at most 20 lines):
--         order id, k/ field, o/ field, fingerprint, user, key, request id ('' if none), number of lines,
--         then per line: product, quantity, q/ field
--
-- Replies
--   {'fenced', why}                       nothing was changed
--   {'late', now µs}                      it came after its not-after instant; nothing was changed
--   {'ok', seq, now µs, answer, answer…}  one answer per order, in their order:
--     {'admitted'}                        stock, quota, key, state and queue entry are written
--     {'replayed', order id}  {'key_reused'}
--     {'closed'}  {'ended'}  {'paused'}  {'not_started'}
--     {'unknown_product', product}  {'over_quota', product, limit, held}  {'sold_out', product, left}
--     {'id_taken'}                        make another order id and ask again
--
-- Redis does not roll back a script that dies half way: everything is read and decided first, in Lua
-- tables through which the orders of a batch see each other's effects; then come only writes that cannot
-- fail. A refused order leaves nothing behind.

local function fields(key, names)
  local values, byname = redis.call('HMGET', key, unpack(names)), {}
  for i = 1, #names do byname[names[i]] = values[i] end
  return byname
end

local sale = fields(KEYS[1], { 'version', 'epoch', 'run_id', 'state', 'starts_ms', 'ends_ms', 'seq' })
if not sale.epoch then return { 'fenced', 'missing' } end
if sale.version ~= ARGV[1] then return { 'fenced', 'version' } end
if sale.epoch ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale.run_id ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale.state == 'loading' then return { 'fenced', 'loading' } end

local seq = tonumber(sale.seq)
if seq < tonumber(ARGV[3]) then return { 'fenced', 'behind' } end

local time = redis.call('TIME')
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = string.format('%.0f', now_ms)
if tonumber(now_us) > tonumber(ARGV[4]) then return { 'late', now_us } end

-- The sale's own word on whether it sells now, or nil.
local shut
if sale.state == 'closed' then shut = 'closed'
elseif now_ms >= tonumber(sale.ends_ms) then shut = 'ended'
elseif sale.state == 'paused' then shut = 'paused'
elseif now_ms < tonumber(sale.starts_ms) then shut = 'not_started' end

-- The batch, and everything it asks of the stores.
local orders, asked, asked_products = {}, {}, {}
local arg = 5
while arg <= #ARGV do
  local order = {
    id = ARGV[arg], k = ARGV[arg + 1], o = ARGV[arg + 2], fingerprint = ARGV[arg + 3],
    user = ARGV[arg + 4], key = ARGV[arg + 5], request = ARGV[arg + 6], lines = {},
  }
  local count = tonumber(ARGV[arg + 7])
  asked[#asked + 1] = order.k
  asked[#asked + 1] = order.o
  arg = arg + 8
  for i = 1, count do
    local quantity = ARGV[arg + 1]
    -- tonumber() reads '0x2', 'nan' and '-100' too; a negative quantity would raise stock.
    if not (quantity and #quantity < 6 and string.find(quantity, '^[1-9]%d*$')) then
      return redis.error_reply('INVALID quantity of order ' .. order.id)
    end
    order.lines[i] = { product = ARGV[arg], quantity = tonumber(quantity), q = ARGV[arg + 2] }
    asked[#asked + 1] = ARGV[arg + 2]
    asked_products[#asked_products + 1] = ARGV[arg]
    arg = arg + 3
  end
  orders[#orders + 1] = order
end
if #orders == 0 or #orders > 128 then return redis.error_reply('INVALID number of orders') end

local book = fields(KEYS[4], asked)
local left = fields(KEYS[2], asked_products)
local product = fields(KEYS[3], asked_products)
for id, text in pairs(product) do
  if text or left[id] then
    local limit, price = string.match(text or '', '^(%d+):(%d+)$')
    left[id] = tonumber(left[id] or '')
    product[id] = { limit = tonumber(limit or ''), price = price }
    -- Known to one hash and not to the other, or unreadable: damage, and no answer to a buyer.
    product[id].damaged = not (limit and left[id])
  end
end

local function decide(order)
  local known = book[order.k]
  if known then
    local id, fingerprint = string.match(known, '^(%S+) (%S+)$')
    if fingerprint ~= order.fingerprint then return { 'key_reused' } end
    return { 'replayed', id }
  end
  if shut then return { shut } end
  for _, line in ipairs(order.lines) do
    if not product[line.product] then return { 'unknown_product', line.product } end
    if product[line.product].damaged then return { 'damaged' } end
  end
  for _, line in ipairs(order.lines) do
    local held, limit = tonumber(book[line.q] or 0), product[line.product].limit
    if held + line.quantity > limit then return { 'over_quota', line.product, limit, held } end
  end
  for _, line in ipairs(order.lines) do
    if left[line.product] < line.quantity then return { 'sold_out', line.product, left[line.product] } end
  end
  if book[order.o] then return { 'id_taken' } end
  return { 'admitted' }
end

local reply, admitted = { 'ok', '', now_us }, {}
local noted, noted_names, taken = {}, {}, {}
local function note(name, value)
  if not noted[name] then noted[name] = true; noted_names[#noted_names + 1] = name end
  book[name] = value
end
for _, order in ipairs(orders) do
  local answer = decide(order)
  -- Nothing is written yet, so the whole batch can still be refused.
  if answer[1] == 'damaged' then return { 'fenced', 'product' } end
  if answer[1] == 'admitted' then
    admitted[#admitted + 1] = order
    note(order.k, order.id .. ' ' .. order.fingerprint)
    note(order.o, 'Q' .. now)
    for _, line in ipairs(order.lines) do
      note(line.q, string.format('%.0f', tonumber(book[line.q] or 0) + line.quantity))
      left[line.product] = left[line.product] - line.quantity
      taken[line.product] = true
    end
  end
  reply[#reply + 1] = answer
end

if #admitted > 0 then
  -- From here on only writes. The stream comes first: XADD is the one that can still refuse (a stream
  -- whose last id is the highest possible, a key of another type), and then nothing else has happened.
  for i, order in ipairs(admitted) do
    local lines = {}
    for j, line in ipairs(order.lines) do
      lines[j] = string.format('%s:%d:%s', line.product, line.quantity, product[line.product].price)
    end
    local entry = { 'order', order.id, 'seq', string.format('%.0f', seq + i), 'epoch', ARGV[2],
      'user', order.user, 'key', order.key, 'fingerprint', order.fingerprint, 'at', now,
      'lines', table.concat(lines, ',') }
    if order.request ~= '' then entry[17], entry[18] = 'request', order.request end
    redis.call('XADD', KEYS[5], '*', unpack(entry))
  end
  seq = seq + #admitted
  local written = {}
  for i, name in ipairs(noted_names) do written[2 * i - 1], written[2 * i] = name, book[name] end
  redis.call('HSET', KEYS[4], unpack(written))
  for id in pairs(taken) do redis.call('HSET', KEYS[2], id, string.format('%.0f', left[id])) end
  redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
end
reply[2] = string.format('%.0f', seq)
return reply
