-- Say what an instance holds of what is limited, and let it have more where all live instances hold less than the limit.
--
-- KEYS: lives (a set of all instances), held (a hash: what this one holds of each name; gone when it is dead)
-- ARGV: the server's run_id, this instance, what the keys of the others' hashes begin with, the TTL in ms, 1 to begin
--       anew, how many names follow, each name with how many are held of it; and for each claim: how many names follow,
--       each name with how many there may be
-- Answer: for each claim 0, or which of its names is full; nil for an instance that is dead and does not begin anew
--
-- The hashes of the others have the hash tag of the keys that are given, so they are at the same node.
local lives, held = KEYS[1], KEYS[2]
local instance, prefix, ttl, anew = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local at = 6

local function next_argument()
  at = at + 1
  return ARGV[at - 1]
end

if anew then
  redis.call('DEL', held)
  redis.call('HSET', held, '', 1) -- who holds nothing is alive too
elseif redis.call('EXISTS', held) == 0 then
  return false
end
for _ = 1, next_argument() do
  local name, count = next_argument(), next_argument()
  if count == '0' then redis.call('HDEL', held, name) else redis.call('HSET', held, name, count) end
end
redis.call('SADD', lives, instance)
redis.call('PEXPIRE', held, ttl)
redis.call('PEXPIRE', lives, ttl)

local others = {}
for _, other in ipairs(redis.call('SMEMBERS', lives)) do
  if other ~= instance then
    if redis.call('EXISTS', prefix .. other) == 1 then others[#others + 1] = prefix .. other
    else redis.call('SREM', lives, other) end
  end
end

local totals = {}
local function total(name)
  if not totals[name] then
    local sum = redis.call('HGET', held, name) or 0
    for _, other in ipairs(others) do sum = sum + (redis.call('HGET', other, name) or 0) end
    totals[name] = sum + 0
  end
  return totals[name]
end

local answers = {}
while at <= #ARGV do
  local names, full = {}, 0
  for n = 1, next_argument() do
    local name, limit = next_argument(), next_argument()
    names[n] = name
    if full == 0 and total(name) >= tonumber(limit) then full = n end
  end
  if full == 0 then
    for _, name in ipairs(names) do
      redis.call('HINCRBY', held, name, 1)
      totals[name] = totals[name] + 1
    end
  end
  answers[#answers + 1] = full
end
return answers
