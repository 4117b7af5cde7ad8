-- Takes or renews the right of one ledger format to grant calls, unless gateways of another format have it; see format-lease.ts.
-- The lease is a hash: the format, when it was renewed last, the format before it, and when that was renewed last. Times are
-- milliseconds of Redis's clock. It needs no command that the other scripts do not need, so that an ACL for these is enough.
--
-- KEYS  1: the lease
-- ARGV  1: the format that asks   2: milliseconds for which a lease lasts   3: milliseconds for which it is remembered
-- Reply: the format that has the lease; where another had it before, that one and how many milliseconds ago it was renewed last
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local format, renewed, before, ended = unpack(redis.call('HMGET', KEYS[1], 'format', 'renewed', 'before', 'ended'))
if format and format ~= ARGV[1] then
  -- A clock that was set back makes no lease last longer.
  if math.abs(now - renewed) < ARGV[2] + 0 then return { format + 0 } end
  before, ended = format, renewed
end
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'renewed', ('%d'):format(now))
if before then redis.call('HSET', KEYS[1], 'before', before, 'ended', ended) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if not before then return { ARGV[1] + 0 } end
return { ARGV[1] + 0, before + 0, now - ended }
