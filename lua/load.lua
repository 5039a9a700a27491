#!lua flags=allow-oom
-- load: one step of loading a sale into Redis, or of rebuilding it there.
--
-- allow-oom: a full Redis that is rebuilt is first emptied.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch  3 load token  4 step, then what the step needs
--   'start'  run id                               fences the sale under the new epoch and takes the load;
--                                                 the run id is that of the server the caller looked at
--   'clear'  number                               removes stock and product, and begins a book of this epoch
--   'stock' | 'product' | 'book'  number, field, value, …
--   'queue'  number, entry id, …                  the group starts anew at 0; these entries are deleted
--   'open'   number, state, starts ms, ends ms, seq
--
-- Replies
--   {'ok', seq}        done; the seq that this Redis knows ('0': none)
--   {'fenced', why}    refused, nothing was changed: 'epoch' (not higher than this Redis's, or another
--                      one), 'token' (another load took over), 'missing', 'version', 'run_id',
--                      'not_loading', 'chunk'
--
-- A load killed anywhere leaves the sale loading, which sells nothing; running it again is right. Steps
-- after 'start' are numbered: each is refused unless it is the next one, or the last one again (its answer
-- was lost). Else a delayed 'clear' could run after the sale was written.

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local step = ARGV[4]

local function kind(key) return redis.call('TYPE', key).ok end

if step == 'start' then
  -- A start that was delayed until another server took this one's place must not fence that one: what the
  -- caller is about to write was read from the other.
  if ARGV[5] ~= run_id then return { 'fenced', 'run_id' } end
  -- A key of another type is damage that the load repairs.
  if kind(KEYS[1]) ~= 'hash' then redis.call('UNLINK', KEYS[1]) end
  local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'token', 'seq', 'version')
  -- What a newer program keeps there is not ours to rewrite.
  if (tonumber(sale[5]) or 0) > tonumber(ARGV[1]) then return { 'fenced', 'version' } end
  local epoch, mine = tonumber(sale[1] or -1), tonumber(ARGV[2])
  local again = epoch == mine and sale[2] == 'loading' and sale[3] == ARGV[3]
  if mine <= epoch and not again then return { 'fenced', 'epoch' } end
  -- A delayed repeat must not set a load back that has gone on meanwhile.
  if again then return { 'ok', sale[4] or '0' } end
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'epoch', ARGV[2], 'state', 'loading', 'token', ARGV[3],
    'chunk', '0', 'run_id', run_id)
  return { 'ok', sale[4] or '0' }
end

local sale = redis.call('HMGET', KEYS[1], 'version', 'epoch', 'run_id', 'state', 'token', 'chunk', 'seq')
if not sale[2] then return { 'fenced', 'missing' } end
if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end
if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end
if sale[3] ~= run_id then return { 'fenced', 'run_id' } end
if sale[4] ~= 'loading' then return { 'fenced', 'not_loading' } end
if sale[5] ~= ARGV[3] then return { 'fenced', 'token' } end
local chunk, last = tonumber(ARGV[5]), tonumber(sale[6])
if chunk ~= last and chunk ~= last + 1 then return { 'fenced', 'chunk' } end

local HASHES = { stock = KEYS[2], product = KEYS[3], book = KEYS[4] }
if step == 'clear' then
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
  -- So that there is a book from now on, and one that is removed is not taken for one without orders.
  redis.call('HSET', KEYS[4], 'epoch', ARGV[2])
elseif HASHES[step] then
  redis.call('HSET', HASHES[step], unpack(ARGV, 6))
elseif step == 'queue' then
  local queue = kind(KEYS[5])
  if queue == 'stream' then redis.call('XGROUP', 'DESTROY', KEYS[5], 'drain')
  elseif queue ~= 'none' then redis.call('UNLINK', KEYS[5]) end
  redis.call('XGROUP', 'CREATE', KEYS[5], 'drain', '0', 'MKSTREAM')
  if #ARGV > 5 then redis.call('XDEL', KEYS[5], unpack(ARGV, 6)) end
elseif step == 'open' then
  redis.call('HSET', KEYS[1], 'state', ARGV[6], 'starts_ms', ARGV[7], 'ends_ms', ARGV[8], 'seq', ARGV[9])
  redis.call('HDEL', KEYS[1], 'token', 'chunk')
  return { 'ok', ARGV[9] }
else
  return redis.error_reply('INVALID step ' .. step)
end
redis.call('HSET', KEYS[1], 'chunk', ARGV[5])
return { 'ok', sale[7] or '0' }
