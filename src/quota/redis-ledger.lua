-- Charges, settles and refunds calls of one home, in one step: the same as counter.ts, with times in microseconds of
-- Redis's own clock. A counter is one string: a header of the sum of all charges (32 bits), the oldest bucket that may
-- hold charges and the current one (48 bits each), the units reserved for leases (32) and until when these are wanted
-- back (48, milliseconds); then SLOTS counts of 32 bits.
--
-- What takes the time here is the number of calls and of numbers that become text, so counters are read whole and written
-- where they changed. `+ 0` makes a number of an argument without the call that `tonumber` is. Of the time of a charge to two
-- limits with a settlement, which is about twelve times that of a script that does nothing, a third goes to reading, a third
-- to the commands that write, the rest to the sums.
--
-- KEYS  1: the gateways that use this home; then a counter for each limit of the meter; all in one hash slot
-- ARGV  1: the gateway   2: the number this call should have among its calls; -1: any, but charge nothing
--       3: the time, empty for Redis's own (only tests step it)   4: calls wanted   5: changes   6: additions
--       7: milliseconds for which leases are taken, 0: not now   8: 1 if these are to be just those that are given
--       then per limit: kind (0 rolling, 1 calendar, 2 concurrent), allowed units, and in microseconds: bucket, hold,
--         slack; milliseconds to live, units of a call
--       then changes: what (settle, abandon, refund: of limits with a window; leave: of calls at once; renew: of both),
--         time of the charge, its calls; for "renew" also the new time, and its calls that are not over
--       then additions: number of the limit, bucket, units
--       then, if leases are taken, per limit the lease that the gateway knows it has
-- Reply: time, the number of this call, calls granted (-1: the number was not right, nothing was done), then per limit:
--        used, microseconds until the oldest charge leaves, free, this gateway's lease (-1: as before), units leased to
--        others, as far as that was of interest;
--        then, unless all were granted, per limit a list of: bucket, units
local SLOTS = 256
local HEADER, COUNTS = '>I4I6I6I4I6', 26 -- bytes before the counts
local FIELDS, FIRST = 7, 8
local ROLLING, CALENDAR, CONCURRENT = '0', '1', '2'
local KEPT = { [ROLLING] = 100, [CALENDAR] = 1, [CONCURRENT] = 0 }
-- How long leases stay given back after a call was refused because of them.
local PRESSURE_MS = 2000
local FIRST_TERM_MS = 3000
local floor, min, max = math.floor, math.min, math.max

local gateway, expected = ARGV[1], ARGV[2] + 0
local now
if ARGV[3] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = ARGV[3] + 0
end
local wanted, changes, additions, term = ARGV[4] + 0, ARGV[5] + 0, ARGV[6] + 0, ARGV[7] + 0
local isClaim = ARGV[8] == '1'
local nowMs = floor(now / 1000)

local number = redis.call('HINCRBY', KEYS[1], gateway, '1')
if expected >= 0 and number ~= expected then return { now, number, -1 } end
if expected < 0 then wanted = 0 end

local counters = {}

local function read(c, bucket)
  local slot = bucket % SLOTS
  local offset = COUNTS + slot * 4
  local stored = offset + 4 <= c.length and struct.unpack('>I4', c.stored, offset + 1) or 0
  return stored + (c.changes[slot] or 0)
end

-- Noted by slot: a bucket that has just left and one that is charged now may share one.
local function change(c, bucket, units)
  local slot = bucket % SLOTS
  c.changes[slot] = (c.changes[slot] or 0) + units
  c.sum = c.sum + units
end

-- What this gateway has in lease of a limit; noted as "units, milliseconds at which it ends".
local function readLease(c)
  c.field = c.key .. '|' .. gateway
  local noted = redis.call('HGET', KEYS[1], c.field)
  c.lease, c.leasedUntil = 0, 0
  if noted then
    local units, ends = noted:match('^(%d+) (%d+)$')
    c.lease, c.leasedUntil = tonumber(units), tonumber(ends)
  end
end

local function advance(c)
  local bucket = floor(now / c.bucket)
  if bucket <= c.current then return end -- a clock that was set back stands still instead
  local first = bucket - c.kept
  if c.sum == 0 or first > c.furthest then
    c.stored, c.length, c.sum, c.oldest = '', 0, 0, bucket
    c.isNew = true
  end
  c.current = bucket
  c.furthest = bucket + SLOTS - c.kept - 1
  c.hasAdvanced = true
  if c.sum == 0 then return end
  while c.oldest < first do
    local units = read(c, c.oldest)
    if units > 0 then change(c, c.oldest, -units) end
    c.oldest = c.oldest + 1
  end
  if c.sum > 0 then
    while read(c, c.oldest) == 0 do c.oldest = c.oldest + 1 end
  end
end

local function put(c, bucket, units)
  bucket = min(bucket, c.furthest)
  if bucket < c.current - c.kept then return end
  if c.sum == 0 or bucket < c.oldest then c.oldest = bucket end
  change(c, bucket, units)
end

local function take(c, bucket, units)
  if bucket < c.current - c.kept or bucket > c.furthest then return end
  local taken = min(units, read(c, bucket))
  if taken > 0 then change(c, bucket, -taken) end
end

local function add(c, from, to, units)
  local last = max(floor(to / c.bucket), c.current)
  for bucket = c.kind == CALENDAR and floor(from / c.bucket) or last, last do put(c, bucket, units) end
end

local function takeBack(c, at, units)
  local last = floor((at + c.hold) / c.bucket)
  for bucket = c.kind == CALENDAR and floor((at - c.slack) / c.bucket) or last, last do take(c, bucket, units) end
end

local function addSettled(c, at, units, later)
  if c.kind == CALENDAR then later = later + c.slack end
  add(c, at - c.slack, now + later, units)
end

local function used(c)
  return c.kind == CALENDAR and read(c, c.current) or c.sum
end

local function free(c)
  if c.kind ~= CALENDAR then return c.allowed - c.sum end
  local most = 0
  for bucket = floor((now - c.slack) / c.bucket), floor((now + c.hold) / c.bucket) do most = max(most, read(c, bucket)) end
  return c.allowed - most
end

local strings = redis.call('MGET', unpack(KEYS, 2))
for i = 1, #strings do
  local a = FIRST + (i - 1) * FIELDS
  local stored = strings[i] or ''
  local kind = ARGV[a + 1]
  local c = {
    key = KEYS[i + 1], stored = stored, length = #stored, kind = kind, kept = KEPT[kind], allowed = ARGV[a + 2] + 0,
    bucket = ARGV[a + 3] + 0, hold = ARGV[a + 4] + 0, slack = ARGV[a + 5] + 0, ttl = ARGV[a + 6],
    units = ARGV[a + 7] + 0, sum = 0, oldest = 0, current = 0, reserved = 0, pressure = 0, changes = {},
  }
  if c.length > 0 then
    c.sum, c.oldest, c.current, c.reserved, c.pressure = struct.unpack(HEADER, stored)
  end
  c.furthest = c.current + SLOTS - c.kept - 1
  advance(c)
  if number == 1 or expected < 0 then -- so that the gateway counts as alive until its leases are renewed
    readLease(c)
    if c.leasedUntil < nowMs then c.lease = 0 end
    c.leasedUntil, c.isRenewed = nowMs + FIRST_TERM_MS, true
  end
  counters[i] = c
end

local a = FIRST + (#KEYS - 1) * FIELDS
for _ = 1, changes do
  local what, at, calls = ARGV[a + 1], ARGV[a + 2] + 0, ARGV[a + 3] + 0
  a = a + 3
  if what == 'renew' then
    local to, open = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    a = a + 2
    for i = 1, #counters do
      local c = counters[i]
      local units = (c.kind == CONCURRENT and open or calls) * c.units
      takeBack(c, at, units)
      add(c, to - c.slack, to + c.hold, units)
    end
  else
    for i = 1, #counters do
      local c = counters[i]
      local units = calls * c.units
      if (c.kind == CONCURRENT) == (what == 'leave') then
        takeBack(c, at, units)
        if what == 'settle' then
          addSettled(c, at, units, 0)
        elseif what == 'abandon' then
          addSettled(c, at, units, c.slack)
        end
      end
    end
  end
end
for _ = 1, additions do
  put(counters[tonumber(ARGV[a + 1])], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]))
  a = a + 3
end

-- Renews this gateway's leases: a share of what is free, nothing while others are refused because of leases.
if term > 0 then
  local all = redis.call('HGETALL', KEYS[1])
  local gateways, leased, own, gone = 1, {}, {}, {}
  local alive = { [gateway] = true }
  for f = 1, #all, 2 do
    local limit, holder = all[f]:match('^(.+)|([^|]+)$')
    if limit and holder == gateway then
      own[limit] = tonumber(all[f + 1]:match('^%d+'))
    elseif limit then
      local units, expires = all[f + 1]:match('^(%d+) (%d+)$')
      if tonumber(expires) < nowMs then
        gone[#gone + 1] = all[f]
      else
        leased[limit] = (leased[limit] or 0) + tonumber(units)
        if not alive[holder] then
          alive[holder] = true
          gateways = gateways + 1
        end
      end
    end
  end
  for f = 1, #all, 2 do
    local holder = all[f]:match('|([^|]+)$')
    if not holder and not alive[all[f]] then gone[#gone + 1] = all[f] end
  end
  if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
  for i = 1, #counters do
    local c = counters[i]
    local others = leased[c.key] or 0
    local left = free(c)
    local share = 0
    if nowMs >= c.pressure then
      share = floor(left / (4 * gateways))
      -- Of small limits a lease of one, as long as that leaves half of what is free to whoever comes first.
      if share < 1 and others + 1 <= left / 2 then share = 1 end
    end
    c.field = c.key .. '|' .. gateway
    local known = tonumber(ARGV[a + i])
    c.told = isClaim and known or max(0, min(share, left - others))
    -- A larger one stays reserved until the gateway knows of the smaller: it spends the larger if this answer gets lost.
    c.lease = max(c.told, min(known, own[c.key] or 0))
    c.leasedUntil = nowMs + term
    c.reserved = others + c.lease
    c.isRenewed = true
  end
end

local granted = wanted
for i = 1, #counters do
  local c = counters[i]
  c.left, c.others = free(c), 0
  if c.reserved > 0 and c.left - c.reserved < wanted * c.units then
    if not c.lease then readLease(c) end
    c.others = max(0, c.reserved - c.lease)
  end
  granted = min(granted, floor((c.left - c.others) / c.units))
end
granted = max(granted, 0)

local reply = { now, number, granted }
local live = max(60000, term)
local records
for i = 1, #counters do
  local c = counters[i]
  if granted > 0 then
    local units = granted * c.units
    add(c, now - c.slack, now + c.hold, units)
    -- What the pool has no room for comes out of the lease.
    local taken = c.lease and min(c.lease, units - max(0, c.left - c.reserved)) or 0
    if taken > 0 then
      c.lease, c.reserved, c.isRenewed = c.lease - taken, c.reserved - taken, true
    end
  end
  if granted < wanted and c.others > 0 and c.left - c.others < (granted + 1) * c.units then
    c.pressure = nowMs + PRESSURE_MS
  end
  if c.isRenewed then
    records = records or { 'HSET', KEYS[1] }
    records[#records + 1] = c.field
    records[#records + 1] = string.format('%d %d', c.lease, c.leasedUntil)
  end
  local sum = used(c)
  local leaves = 0
  if c.kind == CALENDAR then
    leaves = (c.current + 1) * c.bucket - now
  elseif sum > 0 then
    leaves = (min(c.oldest, c.current) + c.kept + 1) * c.bucket - now
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = sum, leaves, free(c), min(c.told or math.huge, c.lease or -1), c.others

  local header = struct.pack(HEADER, c.sum, c.oldest, c.current, c.reserved, c.pressure)
  if c.isNew then
    redis.call('SET', c.key, header .. string.rep('\0', SLOTS * 4)) -- whole, so that it need not grow
  else
    redis.call('SETRANGE', c.key, '0', header)
  end
  for slot, units in pairs(c.changes) do
    if units ~= 0 then
      redis.call('SETRANGE', c.key, COUNTS + slot * 4, struct.pack('>I4', read(c, slot)))
    end
  end
  if c.hasAdvanced or c.isRenewed then redis.call('PEXPIRE', c.key, max(tonumber(c.ttl), term)) end
  live = max(live, tonumber(c.ttl))
end
if records then redis.call(unpack(records)) end
if term > 0 or number == 1 then redis.call('PEXPIRE', KEYS[1], live) end

if granted < wanted then
  for i = 1, #counters do
    local c = counters[i]
    local charges = {}
    if c.kind == ROLLING then
      for bucket = c.oldest, c.furthest do
        local units = read(c, bucket)
        if units > 0 then
          charges[#charges + 1] = bucket
          charges[#charges + 1] = units
        end
      end
    end
    reply[#reply + 1] = charges
  end
end
return reply
