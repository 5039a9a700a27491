#!lua flags=allow-oom
-- begin: a batch of queue entries is about to be recorded under this epoch.
--
-- allow-oom: on a full Redis the drain is the only thing that frees memory.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--       then per entry (at most 1,000): entry id ('' for a parked order that is replayed),
--         the entry's 'order' field ('' if it has none), o/ field
--
-- Replies
--   {'fenced', why}          nothing was changed
--   {'ok', word, word…}      one word per entry, in their order:
--     'processing'           record it
--     'confirmed', 'failed'  it is final already: settle it as that
--     'gone'                 this stream does not hold this entry under this order: drop it
--     'missing'              no state is known for this order, or none that can be read: park it
--
-- Never creates an o/ field: one that is missing shows that Redis has lost something.

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end
if sale[4] == 'loading' then return { 'fenced', 'loading' } end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

-- After Redis lost its tail, another order may have got the same entry id.
local function holds(entry_id, order)
  local entry = redis.call('XRANGE', KEYS[5], entry_id, entry_id)[1]
  if not entry then return false end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'order' then return entry[2][i + 1] == order end
  end
  return order == ''
end

local WORDS = { Q = 'processing', P = 'processing', C = 'confirmed', F = 'failed' }
local reply, begun = { 'ok' }, {}
for arg = 3, #ARGV, 3 do
  local entry_id, order, field = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
  local state = redis.call('HGET', KEYS[4], field)
  if entry_id ~= '' and not holds(entry_id, order) then
    reply[#reply + 1] = 'gone'
  elseif not state then
    reply[#reply + 1] = 'missing'
  else
    local letter = string.sub(state, 1, 1)
    if letter == 'Q' then
      begun[#begun + 1] = field
      begun[#begun + 1] = 'P' .. now
    end
    reply[#reply + 1] = WORDS[letter] or 'missing'
  end
end
if #begun > 0 then redis.call('HSET', KEYS[4], unpack(begun)) end
return reply
