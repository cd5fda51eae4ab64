-- Values with their revisions, unless they are too large together.
-- KEYS: values (hash), revisions (hash). ARGV: bytes at most, and the keys.
local bytes = 0
for at = 2, #ARGV do bytes = bytes + redis.call('HSTRLEN', KEYS[1], ARGV[at]) end
if bytes > tonumber(ARGV[1]) then return {'answer'} end
local found = {'done'}
for at = 2, #ARGV do
  found[#found + 1] = redis.call('HGET', KEYS[1], ARGV[at])
  found[#found + 1] = redis.call('HGET', KEYS[2], ARGV[at])
end
return found
