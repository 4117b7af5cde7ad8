-- Takes or renews the right of one ledger format to grant calls, unless gateways of another format have it; see format-lease.ts.
-- The lease is one string: the format, when it was renewed last, the format before it, and when that was renewed last. Times
-- are milliseconds of Redis's clock.
--
-- KEYS  1: the lease
-- ARGV  1: the format that asks   2: milliseconds for which a lease lasts   3: milliseconds for which it is remembered
-- Reply: the format that has the lease; where another had it before, that one and how many milliseconds ago it was renewed last
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local format, renewed, before, ended = (redis.call('GET', KEYS[1]) or ''):match('^(%d+) (%d+) (%d*) (%d*)$')
if format and format ~= ARGV[1] then
  -- A clock that was set back makes no lease last longer.
  if math.abs(now - renewed) < ARGV[2] + 0 then return { format + 0 } end
  before, ended = format, renewed
end
before, ended = before or '', ended or ''
redis.call('SET', KEYS[1], ('%s %d %s %s'):format(ARGV[1], now, before, ended), 'PX', ARGV[3])
if before == '' then return { ARGV[1] + 0 } end
return { ARGV[1] + 0, before + 0, now - ended }
