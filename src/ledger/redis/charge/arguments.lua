-- Part 1 of 4 of the script that charges calls: what it is given, and whether this call of it may do anything.
--
-- The script charges, commits, refunds and renews calls of one partition, in one step. It does the same as counter.ts and
-- adaptive-limit.ts. Its times are microseconds of Redis's own clock, unless a name ends with Ms. protocol.ts links the parts: it
-- names the first arguments, and puts the constants that both languages share in their places. So these stand in one place only.
--
-- What takes the time here is the number of calls, and of tables, functions and strings that are made. Therefore everything is read
-- by one call of Redis and written by another, code that is rarely needed is in functions that are made only then, and the reply is
-- one string. `+ 0` makes a number of an argument without the function call that `tonumber` is.
--
-- KEYS  1 partition: a hash. `@until`: until when it is kept, in milliseconds. By gateway (`@…`): how many calls it has made.
--         By limit: its counter (see counters.lua). `=pause…`: until when the upstream wants no calls of an account, in milliseconds.
--       2 leases: a hash, by limit and gateway: units, when they end (ms), and how long they last from when the gateway was heard of
--       3 service, where calls are charged that have waited: by client the virtual service, and in the field '' how many of such
--         calls were granted. Otherwise any key.
--       4 on, in the first call that a gateway makes for a charge set: where the format before this one kept the partition, or
--         each limit. All keys are in one hash slot.
-- ARGV  expected: the number that this call should have among the calls of the gateway. -1: a probe, which has any number, is not
--         counted, and charges nothing.
--         0: as 1, of a partition that other gateways use, so that Redis has lost it if it is not there
--       time: microseconds; empty for Redis's own clock (only tests step it)
--       wanted: how many calls to charge, of the last charge set
--       chargeSets, additions: how many of these follow
--       term: milliseconds for which leases are taken; 0: no leases are taken now
--       mode: 1 if the leases are to be just what is given; 2 if the calls to charge have waited; else 0
--       limits: how many follow
--       pauseField: where the partition notes the pause of the account
--       gateway: the field with its number of calls
--       Then the name of each limit.
--       Then for each limit: its kind, with a "w" behind it where it counts money; allowed units, and in microseconds the length of a
--         bucket (or dates: see DATES), how far ahead calls in flight are
--         charged (in-flight lease), and how much later the upstream may count (counting tolerance).
--       Then for each charge set: what a call is charged to each limit (0 if nothing); how many changes follow; and these changes:
--         commit, abandon   time of the charge, calls, when they were over at the latest
--         refund, leave     time of the charge, calls, 0
--         renew             time of the charge, calls without response headers, new time of the charge, calls that are not over
--         pause             field, milliseconds
--         refused           name of a limit, time of the charge
--         counted           name of a limit, time of the charge, units, tolerance, microseconds until more comes back, 1 if refused
--         `leave` and `renew` concern limits of calls in flight; all but `leave` concern the others.
--       Then for each addition: number of the limit, bucket, units.
--       Then, if leases are taken: for each limit the lease that the gateway knows it has.
--       Then, if the calls have waited: for each call, in the order of granting, the number of its client and a blank, all in one
--         string; then for each client its name and what a call costs it.
-- Reply, as doubles: the time; the number of this call (0 instead of 1 if any was allowed and the partition was not there); how
--         many calls were granted; the number of limits.
--       Then for each limit: used units, microseconds until the oldest charge leaves, free units, this gateway's lease (-1: as it
--         was), units leased to others as far as they mattered.
--       Then, unless all were granted and none had waited: for each limit how many numbers follow, and by bucket the units charged.
--       Then, if the calls had waited: how many of such were granted so far.
--       Then for each limit that the upstream's answers have made smaller: its number, units that may be used, units of which it is
--         not known whether others use them, microseconds until a call may find out, microseconds until all of it may be used.
--         Number 0 is the pause: its milliseconds, and zeros.
--   A reply of four numbers with -1 calls granted says that nothing was done: the number was not right, or the dates were not, or this
--   is the gateway's first call and others may still have to tell what Redis has lost. The fourth number is 1 if the partition or its leases are lost.

local call, floor, ceil, min, max = redis.call, math.floor, math.ceil, math.min, math.max
local pack, unpacked = struct.pack, struct.unpack

-- A gateway counts as alive for so long after its first call, until it renews its leases.
local FIRST_TERM_MS = 3000
-- A gateway that has still to tell what Redis lacks gets a lease as if it had not been heard of for this long, so that others wait.
local UNHEARD_MS = 12000
local LEAST_LIFE_MS = 60000

local partition, leases, service, older = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expectedText = expected
expected, wanted, term, limits = expected + 0, wanted + 0, term + 0, limits + 0
local isClaim, hasWaited = mode == '1', mode == '2'
local isUsed = expected == 0
if isUsed then expected = 1 end

local now
if time == '' then
  time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = time + 0
end
local nowMs = floor(now / 1000)

local stored = call('HMGET', partition, '@until', unpack(ARGV, SCALARS - 1, SCALARS + limits))
local keptUntil, pausedUntil, number = (stored[1] or 0) + 0, (stored[2] or 0) + 0, (stored[3] or 0) + 1
-- A probe is not counted. If its answer gets lost, the next one must still tell how many calls Redis remembers. Where it remembers
-- none, the next call has the number 2: others may be overdue, and the first call would wait for them.
if expected >= 0 and stored[3] == '0' then number = 2 end
if expected >= 0 and number ~= expected then
  -- Where Redis has lost the partition, nothing else would end what is written here.
  if stored[1] then call('HSET', partition, gateway, number) end
  return pack('>dddd', now, number, -1, stored[1] and 0 or 1)
end
local noted = (isUsed or expected == 1 or term > 0) and call('HGETALL', leases)
-- Redis evicts keys one by one. Every gateway that uses a partition has a lease in it, if one of nothing: no leases means lost.
local mustHaveLeases = isUsed or expected > 1 and term > 0 and not isClaim
if isUsed and not stored[1] or mustHaveLeases and #noted == 0 then return pack('>dddd', now, number, -1, 1) end
if expected == 1 then
  -- A gateway that is overdue may still have to tell what Redis has lost; the lease of one that has ended lasts FAREWELL_MS. This
  -- call is not counted, so the next ones of this gateway have a wrong number and are answered as this one.
  for i = 2, #noted, 2 do
    local ends, lasts = noted[i]:match('^%d+ (%d+) (%d+)$')
    if lasts + 0 > FAREWELL_MS and nowMs - (ends - lasts) > lasts / 4 then return pack('>dddd', now, 1, -1, 0) end
  end
end
if expected < 0 then wanted = 0 end
