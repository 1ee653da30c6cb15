-- Keep one publication in the history of one room and publish it to that room, in one step.
--
-- KEYS: entries (a stream), meta (a hash), sent (a string that remembers the publication's id for a while)
-- ARGV: the server's run_id, PUBLISH or SPUBLISH, the room's Redis channel, a nonce of the caller, how many entries,
--       for how many ms, the same for meta, the same for sent, the publication's id, its header up to the epoch, frame
-- Answer: "<epoch> <offset>", the old one for an id that is remembered
--
-- A server that was restarted or took over may have lost its last writes and would give their offsets again. So an
-- epoch belongs to one run of one server. What an older epoch has left here is kept as its lineage: up to that offset
-- its places still hold, and beyond it something was lost.
local entries, meta, sent = KEYS[1], KEYS[2], KEYS[3]
local run_id, publish, channel, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local size, ttl, meta_ttl, sent_ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local id, header, frame = ARGV[9], ARGV[10], ARGV[11]
local MAX_LINEAGE = 16

local function new_epoch()
  local now = redis.call('TIME')
  return string.format('%s%x', nonce, now[1] * 1000000 + now[2])
end

-- Epochs and their last offsets, newest first: "<epoch> <offset> <epoch> <offset> ..."
local function lengthened(lineage, epoch, offset)
  local kept = { epoch .. ' ' .. offset }
  for old_epoch, old_offset in string.gmatch(lineage, '(%S+) (%d+)') do
    if #kept == MAX_LINEAGE then break end
    kept[#kept + 1] = old_epoch .. ' ' .. old_offset
  end
  return table.concat(kept, ' ')
end

local known = redis.call('GET', sent)
if known then return known end

local found = redis.call('HMGET', meta, 'epoch', 'offset', 'run_id', 'lineage', 'size', 'ttl')
local epoch, offset, lineage = found[1], found[2] or '0', found[4] or ''
if epoch and found[3] == run_id then
  -- Message types of one room may differ: it keeps as much as the most generous of them asks for.
  size, ttl = math.max(size, found[5]), math.max(ttl, found[6])
  if size ~= tonumber(found[5]) or ttl ~= tonumber(found[6]) then
    redis.call('HSET', meta, 'size', size, 'ttl', ttl)
  end
else
  if epoch then lineage = lengthened(lineage, epoch, offset) end
  epoch = new_epoch()
  -- HSET before DEL: a server that is out of memory refuses the first command that takes some, then no other.
  redis.call('HSET', meta, 'epoch', epoch, 'offset', offset, 'run_id', run_id, 'lineage', lineage,
    'size', size, 'ttl', ttl)
  if not found[1] then redis.call('DEL', entries) end
end

offset = string.format('%.0f', redis.call('HINCRBY', meta, 'offset', 1))
redis.call('XADD', entries, 'MAXLEN', '=', size, offset .. '-0', 'id', id, 'frame', frame)
redis.call('PEXPIRE', entries, ttl)
redis.call('PEXPIRE', meta, math.max(meta_ttl, ttl))
local position = epoch .. ' ' .. offset
redis.call('SET', sent, position, 'PX', sent_ttl)
redis.call(publish, channel, header .. ',"' .. epoch .. '",' .. offset .. ']\n' .. frame)
return position
