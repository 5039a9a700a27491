#!lua flags=allow-oom
-- leave: removes a drainer's name from a queue's group, if nothing is pending under it.
--
-- In one step, because removing a consumer drops what is pending under its name.
--
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 consumer
--
-- Replies
--   {'ok'}      the name is gone
--   {'kept'}    entries are pending under it, or there is no such group

if redis.call('TYPE', KEYS[5]).ok ~= 'stream' then return { 'kept' } end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[5])) do
  if group[2] == 'drain' then
    if #redis.call('XPENDING', KEYS[5], 'drain', '-', '+', 1, ARGV[2]) > 0 then return { 'kept' } end
    redis.call('XGROUP', 'DELCONSUMER', KEYS[5], 'drain', ARGV[2])
    return { 'ok' }
  end
end
return { 'kept' }
