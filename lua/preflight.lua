#!lua flags=no-writes
-- preflight: which of the commands that are sent, by scripts or without, this Redis does not let us run.
--
-- None of them is run. That this one runs shows that scripts do.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue (of any sale)  6 a rate limit's window  7 a cart
-- ARGV  none
--
-- Replies
--   {'ok', {command, …}}    those that are not allowed

local sale, queue, window, cart = KEYS[1], KEYS[5], KEYS[6], KEYS[7]
local COMMANDS = {
  { 'PING' }, { 'TIME' }, { 'INFO' }, { 'SCRIPT', 'LOAD', '' }, { 'EVALSHA', '', '0' },
  { 'TYPE', sale }, { 'HGET', sale, '' }, { 'HMGET', sale, '' }, { 'HGETALL', sale }, { 'HLEN', sale },
  { 'HSCAN', sale, '0' }, { 'HSET', sale, '', '' }, { 'HINCRBY', sale, '', '1' }, { 'HDEL', sale, '' },
  { 'UNLINK', sale },
  { 'XADD', queue, '*', '', '' }, { 'XLEN', queue }, { 'XRANGE', queue, '-', '+' }, { 'XDEL', queue, '0' },
  { 'XREADGROUP', 'GROUP', 'drain', '', 'STREAMS', queue, '>' }, { 'XACK', queue, 'drain', '0' },
  { 'XAUTOCLAIM', queue, 'drain', '', '0', '0' }, { 'XPENDING', queue, 'drain' },
  { 'XGROUP', 'CREATE', queue, 'drain', '0' }, { 'XGROUP', 'DESTROY', queue, 'drain' },
  { 'XGROUP', 'DELCONSUMER', queue, 'drain', '' }, { 'XINFO', 'GROUPS', queue },
  { 'XINFO', 'CONSUMERS', queue, 'drain' },
  { 'GET', window }, { 'INCR', window }, { 'PEXPIRE', window, '1' }, { 'PTTL', window }, { 'DEL', cart },
}

local denied = {}
for _, command in ipairs(COMMANDS) do
  if not redis.acl_check_cmd(unpack(command)) then
    local name = command[1]
    if name == 'XGROUP' or name == 'XINFO' or name == 'SCRIPT' then name = name .. ' ' .. command[2] end
    denied[#denied + 1] = name
  end
end
return { 'ok', denied }
