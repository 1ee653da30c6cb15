-- Take a token from a bucket, which is kept as the time at which it is full again.
--
-- KEYS: the bucket (a string, gone when it is full)
-- ARGV: the server's run_id, in how many microseconds a token comes, in how many an empty bucket is full
-- Answer: 0, or in how many microseconds there is a token
local interval, depth = tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + interval
local missing = full_at - now - depth
if missing > 0 then return missing end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return 0
