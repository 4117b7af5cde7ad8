-- Which partitions the living gateways use. So a gateway that finds no partition can tell one that was never used from one that Redis
-- has lost, and can tell the others of a loss; see partition-register.ts. It is one sorted set:
--   an id and when it was made, at +inf: another one, and everything was lost
--   "+" and a partition that is used: until when, in milliseconds
--   "-" and a partition that was lost: minus when that was reported
-- It ends when no gateway has looked for LIFE_MS. Partitions end sooner, so a Redis that evicts what ends first evicts those first.
--
-- KEYS  1: the register
-- ARGV  1: the id that it gets if it has none   2: the time in microseconds, empty for Redis's own (only tests step it)
--       3: milliseconds for which partitions are used   4: milliseconds for which losses are told
--       5: from when on losses are told, in milliseconds; empty: none   6: a partition that is asked for, or empty
--       7: how many partitions are used, then these, then those that were lost
-- Reply: the id, its age in milliseconds, the time in milliseconds, what the partition is that was asked for (unknown, used, lost),
--        then the partitions that were lost, at most MOST_TOLD
local MOST_TOLD, LIFE_MS = 1000, 100000
local call = redis.call
local register, used = KEYS[1], ARGV[7] + 0
local now = timeMs(ARGV[2])
local function whole(number) return string.format('%d', number) end

local made = call('ZRANGEBYSCORE', register, '+inf', '+inf')[1]
if not made then
  made = ARGV[1] .. ' ' .. whole(now)
  call('ZADD', register, '+inf', made)
end
local id, since = made:match('^(.+) (%d+)$')
call('ZREMRANGEBYSCORE', register, '(' .. whole(ARGV[4] - now), '(' .. whole(now))

for i = 8, 7 + used do call('ZADD', register, whole(now + ARGV[3]), '+' .. ARGV[i]) end
for i = 8 + used, #ARGV do call('ZADD', register, whole(-now), '-' .. ARGV[i]) end

call('PEXPIRE', register, LIFE_MS)

local asked = 'unknown'
if call('ZSCORE', register, '-' .. ARGV[6]) then
  asked = 'lost'
elseif call('ZSCORE', register, '+' .. ARGV[6]) then
  asked = 'used'
end
local reply = { id, now - since, now, asked }
if ARGV[5] ~= '' then
  -- What was reported before the clock was set back would be told, as new, until it is there again.
  for _, name in ipairs(call('ZRANGEBYSCORE', register, whole(-now), '-' .. ARGV[5], 'LIMIT', 0, MOST_TOLD)) do
    reply[#reply + 1] = name:sub(2)
  end
end
return reply
