-- Read a value and forget it. (GETDEL does, from Redis 6.2 on.)
--
-- KEYS: the value
-- ARGV: the server's run_id
-- Answer: the value, or false
local value = redis.call('GET', KEYS[1])
if value then redis.call('DEL', KEYS[1]) end
return value
