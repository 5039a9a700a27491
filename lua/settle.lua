#!lua flags=allow-oom
-- settle: writes the ledger's verdicts on a batch of orders back to Redis, once.
--
-- allow-oom: on a full Redis the drain is the only thing that frees memory.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch (that of the batch's begin)
--       then per verdict (at most 500, of at most 20 lines):
--         entry id ('' if there is none), the entry's 'order' field ('' if it has none), o field,
--         verdict: 'confirmed' | 'failed' | 'parked', reason ('' unless failed),
--         k field ('' to leave it), its value (order id and fingerprint),
--         number of lines (0 unless failed), then per line: product, quantity, q field
--
-- Replies
--   {'fenced', why}                        nothing was changed: 'missing', 'version', 'epoch', 'run_id',
--                                          'loading', 'book' (of another epoch, or there is none)
--   {'ok', {o field…}, {o field…}}         confirmed or failed orders whose state, or the stock or quota
--                                          they would go back to, cannot be read, so that Redis is to be
--                                          recovered; and orders whose units went back now
--
-- An order whose state is there and not final becomes final: 'confirmed' (its key pointing to it), or
-- 'failed' with its units and its quota given back; the key of a duplicate is pointed to the first order.
-- What was final before is left as it is, so that a verdict that comes twice gives back once. Without a
-- state nothing is given back and none is created. 'parked' leaves the state as it is. The queue entry is
-- acknowledged and deleted in the same step, always, if the stream holds it under this order.

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end
if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then return { 'fenced', 'book' } end

local time = redis.call('TIME')
-- After the letter of a state: five bytes of milliseconds since 2020.
local now = struct.pack('>I5', time[1] * 1000 + math.floor(time[2] / 1000) - 1577836800000)

-- Which order the stream holds under an entry id; false if it holds none. After Redis lost its tail, another
-- order may have got the same id. A batch is a stretch of the stream, as a rule, which one call reads; what
-- that has not met is asked for by itself.
local order_of = {}
local function read(first, last, count)
  for _, entry in ipairs(redis.call('XRANGE', KEYS[5], first, last, 'COUNT', count)) do
    local fields, order = entry[2], ''
    for i = 1, #fields, 2 do
      if fields[i] == 'order' then order = fields[i + 1] break end
    end
    order_of[entry[1]] = order
  end
end
local function holds(entry_id, order)
  if order_of[entry_id] == nil then
    order_of[entry_id] = false
    read(entry_id, entry_id, 1)
  end
  return order_of[entry_id] == order
end

local function counts(key, field)
  local value = redis.call('HGET', key, field)
  return value and string.find(value, '^-?%d+$')
end

-- Read and check everything first; a script that dies half way is not rolled back.
local verdicts, fields, entries, arg = {}, {}, {}, 3
while arg <= #ARGV do
  local verdict = {
    entry_id = ARGV[arg], order = ARGV[arg + 1], field = ARGV[arg + 2], word = ARGV[arg + 3],
    reason = ARGV[arg + 4], k = ARGV[arg + 5], k_value = ARGV[arg + 6], lines = {},
  }
  if verdict.entry_id ~= '' then entries[#entries + 1] = verdict.entry_id end
  local count = tonumber(ARGV[arg + 7])
  arg = arg + 8
  for i = 1, count do
    local quantity = ARGV[arg + 1]
    if not (quantity and #quantity < 6 and string.find(quantity, '^[1-9]%d*$')) then
      return redis.error_reply('INVALID quantity of product ' .. ARGV[arg])
    end
    verdict.lines[i] = { product = ARGV[arg], quantity = quantity, q = ARGV[arg + 2] }
    -- Adding to a field that is lost would hide the loss, and to one that is no number would die half way.
    if verdict.word == 'failed' and not (counts(KEYS[2], ARGV[arg]) and counts(KEYS[4], ARGV[arg + 2])) then
      verdict.damaged = true
    end
    arg = arg + 3
  end
  verdicts[#verdicts + 1] = verdict
  fields[#fields + 1] = verdict.field
end
if #verdicts == 0 then return { 'ok', {}, {} } end
if #entries > 1 then read(entries[1], entries[#entries], #entries) end
local states = redis.call('HMGET', KEYS[4], unpack(fields))

local KNOWN = { Q = true, P = true, C = true, F = true }
local missing, given_back, done, book, settled = {}, {}, {}, {}, {}
local function set(field, value)
  book[#book + 1] = field
  book[#book + 1] = value
end
for at, verdict in ipairs(verdicts) do
  local held = verdict.entry_id ~= '' and holds(verdict.entry_id, verdict.order)
  -- The same order twice in one batch: the second sees what the first did.
  local letter = done[verdict.field] or states[at] and string.sub(states[at], 1, 1)
  if verdict.word ~= 'parked' and (not KNOWN[letter] or verdict.damaged and letter ~= 'C' and letter ~= 'F') then
    missing[#missing + 1] = verdict.field
  elseif verdict.word == 'confirmed' and (letter == 'Q' or letter == 'P') then
    set(verdict.field, 'C' .. now)
    set(verdict.k, verdict.k_value)
    done[verdict.field] = 'C'
  elseif verdict.word == 'failed' and (letter == 'Q' or letter == 'P') then
    set(verdict.field, 'F' .. now .. verdict.reason)
    if verdict.k ~= '' then set(verdict.k, verdict.k_value) end
    given_back[#given_back + 1] = verdict
    done[verdict.field] = 'F'
  end
  if held then settled[#settled + 1] = verdict.entry_id end
end

-- One call for all of a kind: each costs about as much as what it does for one order.
if #book > 0 then redis.call('HSET', KEYS[4], unpack(book)) end
for at, verdict in ipairs(given_back) do
  for _, line in ipairs(verdict.lines) do
    redis.call('HINCRBY', KEYS[2], line.product, line.quantity)
    redis.call('HINCRBY', KEYS[4], line.q, '-' .. line.quantity)
  end
  given_back[at] = verdict.field
end
if #settled > 0 then
  redis.call('XACK', KEYS[5], 'drain', unpack(settled))
  redis.call('XDEL', KEYS[5], unpack(settled))
end
return { 'ok', missing, given_back }
