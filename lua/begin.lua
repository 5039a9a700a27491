#!lua flags=allow-oom
-- begin: a batch of queue entries is about to be recorded under this epoch.
--
-- allow-oom: on a full Redis the drain is the only thing that frees memory.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--       then per entry (at most 1,000): entry id ('' for a parked order that is replayed),
--         the entry's 'order' field ('' if it has none), o field
--
-- Replies
--   {'fenced', why}          nothing was changed: 'missing', 'version', 'epoch', 'run_id', 'loading',
--                            'book' (of another epoch, or there is none)
--   {'ok', word, word…}      one word per entry, in their order:
--     'processing'           record it
--     'confirmed', 'failed'  it is final already: settle it as that
--     'gone'                 this stream does not hold this entry under this order: drop it
--     'missing'              no state is known for this order, or none that can be read: park it
--
-- Never creates an o field: one that is missing shows that Redis has lost something.

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end
if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then return { 'fenced', 'book' } end

local time = redis.call('TIME')
-- A letter and five bytes of milliseconds since 2020.
local processing = 'P' .. struct.pack('>I5', time[1] * 1000 + math.floor(time[2] / 1000) - 1577836800000)

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

local entries, fields = {}, {}
for arg = 3, #ARGV, 3 do
  if ARGV[arg] ~= '' then entries[#entries + 1] = ARGV[arg] end
  fields[#fields + 1] = ARGV[arg + 2]
end
if #fields == 0 then return { 'ok' } end
if #entries > 1 then read(entries[1], entries[#entries], #entries) end
local states = redis.call('HMGET', KEYS[4], unpack(fields))

local WORDS = { Q = 'processing', P = 'processing', C = 'confirmed', F = 'failed' }
local reply, begun = { 'ok' }, {}
for at, field in ipairs(fields) do
  local entry_id, order, state = ARGV[3 * at], ARGV[3 * at + 1], states[at]
  if entry_id ~= '' and not holds(entry_id, order) then
    reply[at + 1] = 'gone'
  elseif not state then
    reply[at + 1] = 'missing'
  else
    local letter = string.sub(state, 1, 1)
    if letter == 'Q' then
      begun[#begun + 1] = field
      begun[#begun + 1] = processing
    end
    reply[at + 1] = WORDS[letter] or 'missing'
  end
end
if #begun > 0 then redis.call('HSET', KEYS[4], unpack(begun)) end
return reply
