-- A change of one store: all of it, or nothing. Redis runs nothing else meanwhile.
-- KEYS: values (hash), keys in order (sorted set), revisions (hash), usage (hash).
-- ARGV: bytes at most, keys at most, what an entry costs beside its key and value, what to do, and with what.
local values, order, revisions, usage = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local bytes_max, keys_max, cost, verb = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local wanted, number = {}, false
if verb == 'set' then
  for at = 5, #ARGV, 2 do wanted[#wanted + 1] = {ARGV[at], ARGV[at + 1]} end
elseif verb == 'delete' then
  for at = 5, #ARGV do wanted[#wanted + 1] = {ARGV[at], false} end
elseif verb == 'swap' then
  if (redis.call('HGET', revisions, ARGV[5]) or '0') ~= ARGV[6] then return {'stale'} end
  wanted[1] = {ARGV[5], ARGV[7]}
else
  -- Lua's numbers are too short: Redis adds, and what it came to is put back until it is known whether there is room.
  local old = redis.call('HGET', values, ARGV[5])
  local added = redis.pcall('HINCRBY', values, ARGV[5], ARGV[6])
  if type(added) == 'table' then
    if string.find(added.err, 'overflow', 1, true) then return {'overflow'} end
    return {'number'}
  end
  number = redis.call('HGET', values, ARGV[5])
  if old then redis.call('HSET', values, ARGV[5], old) else redis.call('HDEL', values, ARGV[5]) end
  wanted[1] = {ARGV[5], number}
end

local bytes, keys = tonumber(redis.call('HGET', usage, 'bytes') or '0'), redis.call('HLEN', values)
local bytes_after, keys_after = bytes, keys
for _, pair in ipairs(wanted) do
  local key, value = pair[1], pair[2]
  if redis.call('HEXISTS', values, key) == 1 then
    bytes_after, keys_after = bytes_after - cost - #key - redis.call('HSTRLEN', values, key), keys_after - 1
  end
  if value then bytes_after, keys_after = bytes_after + cost + #key + #value, keys_after + 1 end
end
if keys_after > keys and keys_after > keys_max then return {'keys'} end
if bytes_after > bytes and bytes_after > bytes_max then return {'bytes'} end

local revision = redis.call('HINCRBY', usage, 'revision', 1)
for _, pair in ipairs(wanted) do
  local key, value = pair[1], pair[2]
  if value then
    redis.call('HSET', values, key, value)
    redis.call('ZADD', order, 0, key)
    redis.call('HSET', revisions, key, string.format('%.0f', revision))
  else
    redis.call('HDEL', values, key)
    redis.call('ZREM', order, key)
    redis.call('HDEL', revisions, key)
  end
end
redis.call('HSET', usage, 'bytes', string.format('%.0f', bytes_after))
return {'done', number}
