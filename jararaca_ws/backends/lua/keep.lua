-- Keep a value in place of the one before, for as long as that had left, where it is longer.
--
-- KEYS: the value
-- ARGV: the server's run_id, the value, for how many ms
redis.call('SET', KEYS[1], ARGV[2], 'PX', math.max(ARGV[3], redis.call('PTTL', KEYS[1])))
