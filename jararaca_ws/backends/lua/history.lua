-- Read what a room keeps after a place: all of it, or nothing.
--
-- KEYS: entries, meta (as append.lua writes them)
-- ARGV: the server's run_id, at most how many entries, the epoch and offset of the place; both empty for the newest
-- Answer: epoch, offset, 1 or 0: nothing is missing between the place and what follows, and the entries
--
-- It need not look at the run_id: offsets are given by append.lua alone, which begins a new epoch after a restart.
local entries, meta = KEYS[1], KEYS[2]
local limit, since_epoch, since = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local found = redis.call('HMGET', meta, 'epoch', 'offset', 'lineage')
local epoch, top, lineage = found[1] or '', tonumber(found[2] or 0), found[3] or ''

-- Up to which offset a place in that epoch still holds; -1: there is no such epoch any more.
local function valid_up_to(asked)
  if asked == epoch then return top end
  for old_epoch, last in string.gmatch(lineage, '(%S+) (%d+)') do
    if old_epoch == asked then return tonumber(last) end
  end
  return -1
end

if not since then
  local newest = redis.call('XREVRANGE', entries, '+', '-', 'COUNT', limit)
  local oldest_first = {}
  for i = #newest, 1, -1 do oldest_first[#oldest_first + 1] = newest[i] end
  return { epoch, top, 1, oldest_first }
end
if epoch == '' or since < 0 or since > valid_up_to(since_epoch) or top - since > limit then
  return { epoch, top, 0, {} }
end
if since == top then return { epoch, top, 1, {} } end
local missed = redis.call('XRANGE', entries, string.format('%.0f-0', since + 1), '+')
-- Offsets have no holes, so the number says whether all are still kept.
if #missed ~= top - since then return { epoch, top, 0, {} } end
return { epoch, top, 1, missed }
