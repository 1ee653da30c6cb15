-- Publish what the room does not keep, unless its id is remembered.
--
-- KEYS: sent (a string that remembers the publication's id for a while)
-- ARGV: the server's run_id, PUBLISH or SPUBLISH, the room's Redis channel, for how many ms, the publication
-- Answer: 1, or 0 for an id that is remembered
local publish, channel, sent_ttl, publication = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if not redis.call('SET', KEYS[1], '1', 'PX', sent_ttl, 'NX') then return 0 end
redis.call(publish, channel, publication)
return 1
