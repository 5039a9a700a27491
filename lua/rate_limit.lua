#!lua
-- rate_limit: counts one request of a client address in its fixed window.
--
-- KEYS  1 the address's window
-- ARGV  1 requests allowed in a window  2 the window's length in ms
--
-- Replies
--   {'allowed'}
--   {'limited', ms until the window ends}
--
-- A refused request is not counted: the counter never grows beyond the limit.

local count = tonumber(redis.call('GET', KEYS[1]) or 0)
if count >= tonumber(ARGV[1]) then
  local left = redis.call('PTTL', KEYS[1])
  -- A counter without an end, however it came to be, would lock the address out for ever.
  if left > 0 then return { 'limited', left } end
  redis.call('DEL', KEYS[1])
  count = 0
end
redis.call('INCR', KEYS[1])
if count == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return { 'allowed' }
