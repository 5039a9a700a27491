#!lua flags=no-writes
-- audit: one consistent look at what a sale holds, while it is selling.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch  3 number of o fields, then these o fields (of parked orders),
--       then further fields of the book
--
-- Replies
--   {'fenced', why}   'missing', 'version', 'epoch', 'run_id', 'loading'
--   {'ok', seq, {product, left, …}, {entry id, {name, value, …}, …}, {o field's value or '', …} one per
--    entry, {value or '', …} one per o field asked for, {value or '', …} one per further field}

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state', 'seq')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end

local function state(field) return redis.call('HGET', KEYS[4], field) or '' end

-- Entries of version 1 have the id as text, of which the book keeps twelve bytes.
local function packed(order)
  if #order ~= 36 then return order end
  local digits = string.sub(string.gsub(order, '-', ''), 1, 24)
  return (string.gsub(digits, '%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

local entries, states = {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '-', '+')) do
  entries[#entries + 1], entries[#entries + 2] = entry[1], entry[2]
  local order
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'order' then order = entry[2][i + 1] end
  end
  states[#states + 1] = order and state('o' .. packed(order)) or ''
end
local parked, further = {}, {}
for i = 4, #ARGV do
  local into = i < 4 + tonumber(ARGV[3]) and parked or further
  into[#into + 1] = state(ARGV[i])
end
return { 'ok', sale[5], redis.call('HGETALL', KEYS[2]), entries, states, parked, further }
