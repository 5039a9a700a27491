#!lua flags=allow-oom
-- settle: writes the ledger's verdicts on a batch of orders back to Redis, once.
--
-- allow-oom: on a full Redis the drain is the only thing that frees memory.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch (that of the batch's begin)
--       then per verdict (at most 500, of at most 20 lines):
--         entry id ('' if there is none), the entry's 'order' field ('' if it has none), o/ field,
--         verdict: 'confirmed' | 'failed' | 'parked', reason ('' unless failed),
--         k/ field ('' to leave it), its value (order id, space, fingerprint),
--         number of lines, then per line: product, quantity, q/ field
--
-- Replies
--   {'fenced', why}                          nothing was changed
--   {'ok', {o/ field…}, {o/ field…}}         confirmed or failed orders whose state, or the stock or quota
--                                            they would go back to, cannot be read, so that Redis is to be
--                                            recovered; and orders whose units went back now
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

local function counts(key, field)
  local value = redis.call('HGET', key, field)
  return value and string.find(value, '^-?%d+$')
end

-- Read and check everything first; a script that dies half way is not rolled back.
local verdicts, arg = {}, 3
while arg <= #ARGV do
  local verdict = {
    entry_id = ARGV[arg], field = ARGV[arg + 2], word = ARGV[arg + 3], reason = ARGV[arg + 4],
    k = ARGV[arg + 5], k_value = ARGV[arg + 6], lines = {},
  }
  local count = tonumber(ARGV[arg + 7])
  verdict.held = verdict.entry_id ~= '' and holds(verdict.entry_id, ARGV[arg + 1])
  verdict.state = redis.call('HGET', KEYS[4], verdict.field)
  arg = arg + 8
  for i = 1, count do
    local quantity = ARGV[arg + 1]
    if not (quantity and #quantity < 6 and string.find(quantity, '^[1-9]%d*$')) then
      return redis.error_reply('INVALID quantity of ' .. verdict.field)
    end
    verdict.lines[i] = { product = ARGV[arg], quantity = quantity, q = ARGV[arg + 2] }
    -- Adding to a field that is lost would hide the loss, and to one that is no number would die half way.
    if verdict.word == 'failed' and not (counts(KEYS[2], ARGV[arg]) and counts(KEYS[4], ARGV[arg + 2])) then
      verdict.damaged = true
    end
    arg = arg + 3
  end
  verdicts[#verdicts + 1] = verdict
end

local KNOWN = { Q = true, P = true, C = true, F = true }
local missing, given_back, done = {}, {}, {}
for _, verdict in ipairs(verdicts) do
  local letter = verdict.state and string.sub(verdict.state, 1, 1)
  -- The same order twice in one batch: the second sees what the first did.
  if done[verdict.field] then letter = done[verdict.field] end
  if verdict.word ~= 'parked' and (not KNOWN[letter] or verdict.damaged and letter ~= 'C' and letter ~= 'F') then
    missing[#missing + 1] = verdict.field
  elseif verdict.word == 'confirmed' and (letter == 'Q' or letter == 'P') then
    redis.call('HSET', KEYS[4], verdict.field, 'C' .. now, verdict.k, verdict.k_value)
    done[verdict.field] = 'C'
  elseif verdict.word == 'failed' and (letter == 'Q' or letter == 'P') then
    redis.call('HSET', KEYS[4], verdict.field, 'F' .. now .. ' ' .. verdict.reason)
    if verdict.k ~= '' then redis.call('HSET', KEYS[4], verdict.k, verdict.k_value) end
    for _, line in ipairs(verdict.lines) do
      redis.call('HINCRBY', KEYS[2], line.product, line.quantity)
      redis.call('HINCRBY', KEYS[4], line.q, '-' .. line.quantity)
    end
    given_back[#given_back + 1] = verdict.field
    done[verdict.field] = 'F'
  end
  if verdict.held then
    redis.call('XACK', KEYS[5], 'drain', verdict.entry_id)
    redis.call('XDEL', KEYS[5], verdict.entry_id)
  end
end
return { 'ok', missing, given_back }
