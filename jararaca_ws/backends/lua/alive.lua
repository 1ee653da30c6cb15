-- Is an instance alive, and what is the time?
--
-- KEYS: of the instance's life
-- ARGV: the server's run_id
-- Answer: 1 or 0, and the time in seconds and microseconds
--
-- A script, and not EXISTS and TIME, because a cluster sends each command to the node that has its key.
local time = redis.call('TIME')
return { redis.call('EXISTS', KEYS[1]), time[1], time[2] }
