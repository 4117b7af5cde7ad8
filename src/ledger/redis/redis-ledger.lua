-- Charges, commits and refunds calls of one partition, in one step: the same as counter.ts, with times in microseconds of
-- Redis's own clock. A partition is one hash: how often each gateway has called, until when the hash is kept (milliseconds), and
-- a counter for each limit. A counter is
--   a header: the sum of all charges; the oldest bucket that holds some, and the current one; the units reserved for leases,
--     and until when these are wanted back, in milliseconds; whether there are earlier entries (1), and something that the
--     upstream's answers taught (2), which is in a field of its own, as adaptive-limit.ts has it;
--   an entry for each bucket that holds charges: its number modulo SLOTS, its count. The last bucket comes first, then the
--     others in their order. Of many the early ones, which change no more, are in a field of their own.
--
-- What takes the time here is the number of calls, and of tables, functions and strings that are made: so everything is read
-- by one call and written by another, what is rarely wanted is apart, the reply is one string, and `+ 0` makes a number of
-- an argument without the call that `tonumber` is.
--
-- Until when the upstream wants no calls of an account is in a field, too.
--
-- KEYS  1: the partition; 2: the leases taken of its limits; 3, where calls are charged that have waited: what the clients that wait
--       have been served, and in the field without a name how many calls that were, else any key; 4 on, in the first call that
--       a gateway makes for a kind of call: where the format before this one kept the partition, or each limit; all in one hash slot
-- ARGV  1: the number this call should have among the gateway's calls; -1: any, but charge nothing; 0: as 1, of a partition that
--       others use, so that it is lost if it is not there
--       2: the time, empty for Redis's own (only tests step it)   3: calls wanted, of the last kind   4: kinds of call
--       5: additions
--       6: milliseconds for which leases are taken, 0: not now   7: 1 if these are to be just those that are given;
--       2 if calls are charged that have waited
--       8: limits   9: the field of the account's pause   10: the gateway, then the name of each limit
--       then per limit: kind (0 rolling, 1 calendar, 2 concurrent, 3 smoothing), allowed units, and in microseconds: bucket, in-flight lease,
--         counting tolerance
--       then per kind of call: its units of each limit, 0 where it is not charged to it; how many changes, and these: what
--         (commit, abandon, refund: of limits with a window; leave: of calls at once; renew: of both), time of the charge, its
--         calls, and for "commit" and "abandon" when they were over at the latest, for "renew" the new time, for the others 0;
--         for "renew" also its calls that are not over; or what was taught: "pause", its field, its milliseconds; "refused", the
--         name of a limit, time of the charge; "counted", the same, the units, the tolerance, microseconds until more comes
--         back, 1 if the call was refused
--       then additions: number of the limit, bucket, units
--       then, if leases are taken, per limit the lease that the gateway knows it has
--       then, if calls are charged that have waited: of each call, in the order in which they are to be granted, the number of
--         its client and a blank; then by client its name, what a call costs it
-- Reply, as doubles: time, the number of this call (0: 1, with any allowed, and the partition was not there), calls granted (-1: nothing was done, because the number was not
--        right, or it is the first and what is known here may lack charges of other gateways; the next number is then 1 if the
--        partition was lost, or its leases, else 0), limits,
--        then per limit: used, microseconds until the oldest charge leaves, free, this gateway's lease (-1: as before), units
--        leased to others, as far as that was of interest; then, unless all were granted and none had waited, per limit how
--        many numbers follow, and these: bucket, units of each charge; then, if calls were charged that have waited, how many of
--        such were granted so far; then, where something was taught, five numbers each: the limit, what of it may be used, of
--        how many units it is not known whether others use them, and microseconds until a call may find out, and until all of
--        it may be used again; or 0, the milliseconds of the pause that are left, and zeros
local SLOTS = 256
local HEADER, HEADER_BYTES = '>I4I6I6I4I6BBI4', 32
local ENTRY, ENTRY_BYTES = '>BI4', 5
-- Entries that are left where they are read with each call.
local MOST_BYTES = 16 * ENTRY_BYTES
local STIRRING = 6
local SCALARS, FIELDS = 10, 5
local CALENDAR, CONCURRENT, SMOOTHING = '1', '2', '3'
local KEPT = { ['0'] = 100, [CALENDAR] = 1, [CONCURRENT] = 0, [SMOOTHING] = 100 }
-- How long leases stay given back after a call was refused because of them, or had waited while less than such a part was free:
-- what is free then is somebody's turn, who would have to wait until it is given back.
local PRESSURE_MS, SCARCE = 2000, 0.1
local FIRST_TERM_MS = 3000
-- For a gateway that has still to tell what Redis lacks: as if it had not been heard of for long.
local UNHEARD_MS = 12000
local LEAST_LIFE_MS = 60000
local call, floor, ceil, min, max = redis.call, math.floor, math.ceil, math.min, math.max
local pack, unpacked = struct.pack, struct.unpack

local partition, leases, limits, gateway = KEYS[1], KEYS[2], ARGV[8] + 0, ARGV[SCALARS]
local expected, wanted, term, hasWaited = ARGV[1] + 0, ARGV[3] + 0, ARGV[6] + 0, ARGV[7] == '2'
local isUsed = expected == 0
if isUsed then expected = 1 end
local now
if ARGV[2] == '' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = ARGV[2] + 0
end
local nowMs = floor(now / 1000)

local stored = call('HMGET', partition, '@until', unpack(ARGV, SCALARS - 1, SCALARS + limits))
local pausedUntil = (stored[2] or 0) + 0
local number = (stored[3] or 0) + 1
if expected >= 0 and number ~= expected then
  call('HSET', partition, gateway, number)
  return pack('>dddd', now, number, -1, stored[1] and 0 or 1)
end
local noted = (isUsed or expected == 1 or term > 0) and call('HGETALL', leases)
-- Keys are lost one by one where they are evicted. Whoever uses a partition has a lease of it, if one of nothing.
local mustHaveLeases = isUsed or expected > 1 and term > 0 and ARGV[7] ~= '1'
if isUsed and not stored[1] or mustHaveLeases and #noted == 0 then return pack('>dddd', now, number, -1, 1) end
if expected == 1 then
  -- Gateways that should have been heard of and were not may still have to tell what Redis has lost; a farewell lasts 1. As
  -- this call is not noted, those after it have wrong numbers.
  for i = 2, #noted, 2 do
    local ends, lasts = noted[i]:match('^%d+ (%d+) (%d+)$')
    if lasts + 0 > 1 and nowMs - (ends - lasts) > lasts / 4 then return pack('>dddd', now, 1, -1, 0) end
  end
end
if expected < 0 then wanted = 0 end

local function readEarlier(c)
  return c.earlier or c.hasEarlier and call('HGET', partition, c.name .. '|earlier') or ''
end

-- What gateways of an older release, which have ended, charged to a limit since the bucket `first`. It is not known here when
-- each charge leaves, so all of them count as made now. Since format 2 a counter begins with the sum of its charges, its oldest
-- bucket and its current one.
local function chargedBefore(i, first)
  -- Format 2 had a string for each limit. An error says that this is no string, or that the user of Redis may not read one.
  local record = KEYS[3 + i] and redis.pcall('GET', KEYS[3 + i])
  if type(record) ~= 'string' then record = redis.pcall('HGET', KEYS[4], ARGV[SCALARS + i]) end
  if type(record) ~= 'string' then return 0 end
  local sum, _, current = unpacked('>I4I6I6', record)
  return current >= first and sum or 0
end

local counters, pauses = {}, nil

-- What this gateway has in lease of a limit; noted as: units, milliseconds at which it ends, how long it lasts from when the
-- gateway was heard of.
local function readLease(c)
  c.lease, c.leasedUntil, c.lasts = 0, 0, 0
  local noted = call('HGET', leases, c.name .. '|' .. gateway)
  if noted then
    local units, ends, lasts = noted:match('^(%d+) (%d+) (%d+)$')
    c.lease, c.leasedUntil, c.lasts = units + 0, ends + 0, lasts + 0
  end
end

-- Most calls only charge to the last bucket of rolling windows, or to a new one. What others take is made for them only.
local isMore = term > 0 or ARGV[4] ~= '1' or ARGV[5] ~= '0' or ARGV[SCALARS + (FIELDS + 2) * limits + 1] ~= '0'
local live = max(LEAST_LIFE_MS, term)
local a = SCALARS + limits
for i = 1, limits do
  local kind, bucketMicros = ARGV[a + 1], ARGV[a + 3] + 0
  local kept = KEPT[kind]
  local sum, oldest, current, reserved, pressure, flags, slot, count = 0, 0, 0, 0, 0, 0, 0, 0
  local entries, earlier, isAdapted, last = '', nil, false, 0
  local record = stored[i + 3]
  if record then
    sum, oldest, current, reserved, pressure, flags, slot, count = unpacked(HEADER, record)
    if #record > HEADER_BYTES then entries = record:sub(HEADER_BYTES + 1) end
    last = current - kept + (slot - current + kept) % SLOTS
    if flags >= 2 then flags, isAdapted = flags - 2, true end
  end
  local bucket = floor(now / bucketMicros)
  local behind = current > bucket and current - bucket or 0 -- a clock that was set back stands still
  if bucket > current then
    local first, before = bucket - kept, current - kept
    if sum == 0 or last < first then
      if flags == 1 then earlier, flags = '', 0 end
      sum, entries, last, count = 0, '', bucket, 0
    elseif oldest < first then
      local function rest(some)
        for at = 1, #some, ENTRY_BYTES do
          local one, units = unpacked(ENTRY, some, at)
          oldest = before + (one - before) % SLOTS
          if oldest >= first then return some:sub(at) end
          sum = sum - units
        end
        oldest = last
        return ''
      end
      if flags == 1 then
        earlier = rest(call('HGET', partition, ARGV[SCALARS + i] .. '|earlier') or '')
        if earlier == '' then flags = 0 end
      end
      if flags == 0 then entries = rest(entries) end
    end
    current = bucket
    live = max(live, ((kept + 3) * bucketMicros + ARGV[a + 4]) / 1000)
  end
  if KEYS[4] and not record then
    local units = chargedBefore(i, bucket - (kind == CALENDAR and 0 or kept))
    if units > 0 then sum, oldest, last, count = units, bucket, bucket, units end
  end
  local c = {
    name = ARGV[SCALARS + i], kind = kind, allowed = ARGV[a + 2] + 0, bucket = bucketMicros, inFlightLease = ARGV[a + 4] + 0,
    countingTolerance = ARGV[a + 5], units = 0, kept = kept, first = current - kept, furthest = current - kept + SLOTS - 1, behind = behind,
    sum = sum, oldest = oldest, current = current, reserved = reserved, pressure = pressure, hasEarlier = flags == 1,
    last = last, count = count, entries = entries, earlier = earlier, wasAdapted = isAdapted, left = 0, others = 0,
  }
  if number == 1 or expected < 0 then -- so that the gateway counts as alive until its leases are renewed
    readLease(c)
    if c.leasedUntil < nowMs then c.lease = 0 end
    c.leasedUntil, c.isRenewed = nowMs + FIRST_TERM_MS, true
    c.lasts = expected < 0 and UNHEARD_MS or FIRST_TERM_MS
  end
  counters[i] = c
  isMore = isMore or isAdapted or kind == CALENDAR or last > floor((now + c.inFlightLease) / bucketMicros)
  a = a + FIELDS
end

local adaptiveLimits, find, charge, read, free
if isMore then
  -- Where the entry of a bucket that is not the last is or belongs, and its bytes. Looked for from the end, where it mostly is.
  function find(c, bucket)
    local entries, first = c.entries, c.first
    for at = #entries - ENTRY_BYTES + 1, 1, -ENTRY_BYTES do
      local ahead = first + (entries:byte(at) - first) % SLOTS - bucket
      if ahead == 0 then return at, ENTRY_BYTES end
      if ahead < 0 then return at + ENTRY_BYTES, 0 end
    end
    if not c.hasEarlier then return 1, 0 end
    c.entries, c.earlier, c.hasEarlier = readEarlier(c) .. entries, '', false
    return find(c, bucket)
  end

  function read(c, bucket)
    if bucket >= c.last then return bucket == c.last and c.count or 0 end
    local at, bytes = find(c, bucket)
    if bytes == 0 then return 0 end
    local _, count = unpacked(ENTRY, c.entries, at)
    return count
  end

  -- Adds units to a bucket, or takes them back, no more than there are.
  local function change(c, bucket, units)
    if bucket < c.first or units == 0 then return end
    if bucket > c.last then
      if units < 0 then return end
      if c.count > 0 then c.entries = c.entries .. pack(ENTRY, c.last % SLOTS, c.count) end
      c.last, c.count = bucket, 0
    end
    if bucket == c.last then
      units = max(units, -c.count)
      c.count = c.count + units
    else
      local at, bytes = find(c, bucket)
      local entries, count = c.entries, 0
      if bytes > 0 then
        local _
        _, count = unpacked(ENTRY, entries, at)
      end
      units = max(units, -count)
      local entry = count + units > 0 and pack(ENTRY, bucket % SLOTS, count + units) or ''
      c.entries = entries:sub(1, at - 1) .. entry .. entries:sub(at + bytes)
    end
    if units > 0 and (c.sum == 0 or bucket < c.oldest) then c.oldest = bucket end
    c.sum = c.sum + units
    if units < 0 and bucket == c.oldest and read(c, bucket) == 0 then -- so there are no earlier entries
      c.oldest = c.entries ~= '' and c.first + (c.entries:byte() - c.first) % SLOTS or c.last
    end
  end

  -- Adds units, or takes them back, of calls sent at `at`, which the upstream may count until `to`: a rolling window has room
  -- again a window after the latest. In a calendar window that ends then they may be counted a little earlier, too.
  function charge(c, at, to, units)
    local last = floor(to / c.bucket)
    if units > 0 then last = to < now and last + c.behind or max(last, c.current) end
    for bucket = c.kind == CALENDAR and floor((at - c.countingTolerance) / c.bucket) or last, last do
      if bucket <= c.furthest then
        change(c, bucket, units)
      elseif units > 0 then
        change(c, c.furthest, units)
      end
    end
  end

  local function mostUsed(c)
    if c.kind ~= CALENDAR then return c.sum end
    local most = 0
    for bucket = floor((now - c.countingTolerance) / c.bucket), floor((now + c.inFlightLease) / c.bucket) do most = max(most, read(c, bucket)) end
    return most
  end

  -- Little is learned mostly, so what it takes is made where there is something.
  local function withAdaptiveLimits()
    if adaptiveLimits then return adaptiveLimits end
    -- Level, least, since, others, until, lookAt, observedAt.
    local ADAPTIVE = '>ddddddd'
    local MARGIN, CALM_UNTIL, GROWN_AT, LOOKS, LOOKS_PER_UNIT = 0.05, 1, 4, 20, 5
    local LONGEST_GROWTH = 600000000

    local function growthOf(c)
      return min(c.bucket * c.kept, LONGEST_GROWTH)
    end

    local function lessMargin(units)
      return max(1, units - ceil(units * MARGIN))
    end

    local function othersAt(l)
      return now < l.untilTime and l.others or 0
    end

    local function capOf(c, l, at)
      if l.since == 0 then return c.allowed end
      local calm = min(c.allowed, lessMargin(max(l.least, l.level)))
      local grown = ((at - l.since) / growthOf(c) - CALM_UNTIL) / (GROWN_AT - CALM_UNTIL)
      if grown <= 0 then return calm end
      return grown >= 1 and c.allowed or calm + floor((c.allowed - calm) * grown * grown * grown)
    end

    local function leftOf(c, l, at)
      return max(0, min(capOf(c, l, at), c.allowed - othersAt(l)))
    end

    local function sureOf(c, l)
      return leftOf(c, l, now - growthOf(c))
    end

    -- Units that may be used now, if our own are to be `units` with the next call.
    local function allowedOf(c, units)
      local l = c.adaptive
      local sure = sureOf(c, l)
      if sure >= units or now < l.lookAt then return sure end
      return min(capOf(c, l, now), units)
    end

    local function wholeAt(c, l)
      return l.since == 0 and l.untilTime or max(l.untilTime, l.since + GROWN_AT * growthOf(c))
    end

    local function adaptiveOf(c)
      if not c.adaptive or now >= wholeAt(c, c.adaptive) then
        c.adaptive = { level = 0, least = 0, since = 0, others = 0, untilTime = 0, lookAt = 0, observedAt = 0 }
      end
      c.isAdapted = true
      return c.adaptive
    end

    local function refuse(c, at)
      local l, used = adaptiveOf(c), mostUsed(c)
      if at > l.since then
        local cap = capOf(c, l, now)
        local through = min(cap, used)
        l.level = l.since > 0 and used <= sureOf(c, l) and lessMargin(through) or through
        l.least, l.since = max(1, floor(cap / 2)), now
      end
      l.level = l.level - c.units
    end

    local function observe(c, at, counted, tolerance, reset)
      local l, used = adaptiveOf(c), mostUsed(c)
      local excess = counted - used
      if at < l.observedAt then return excess > tolerance end
      l.observedAt = at
      if excess <= (othersAt(l) > 0 and 0 or tolerance) then
        l.others = 0
        if l.level > c.allowed then l.since = 0 end
        return false
      end
      local window = c.kind == CALENDAR and (c.current + 1) * c.bucket + c.countingTolerance - now or c.bucket * c.kept
      l.others, l.untilTime, l.lookAt = excess + tolerance, now + window, now + min(reset, window)
      return true
    end

    local function excuse(c, at, reset)
      local l = c.adaptive
      if l.since > 0 then return l.level > c.allowed and at <= l.since end
      l.since, l.level, l.least = now + min(reset, growthOf(c)) + growthOf(c) / LOOKS, 2 * c.allowed, 0
      return true
    end

    local function applyFeedback(what, at)
      local name = ARGV[at + 2]
      if what == 'pause' then
        pauses = pauses or {}
        local known = name == ARGV[SCALARS - 1] and pausedUntil or (call('HGET', partition, name) or 0) + 0
        pauses[name] = max(known, pauses[name] or 0, nowMs + ARGV[at + 3])
        if name == ARGV[SCALARS - 1] then pausedUntil = pauses[name] end
        return at + 3
      end
      local c
      for i = 1, limits do
        if counters[i].name == name then c = counters[i] end
      end
      if what == 'refused' then
        refuse(c, ARGV[at + 3] + 0)
        return at + 3
      end
      local isOfOthers = observe(c, ARGV[at + 3] + 0, ARGV[at + 4] + 0, ARGV[at + 5] + 0, ARGV[at + 6] + 0)
      if ARGV[at + 7] == '1' and not (isOfOthers and excuse(c, ARGV[at + 3] + 0, ARGV[at + 6] + 0)) then
        refuse(c, ARGV[at + 3] + 0)
      end
      return at + 7
    end

    local function look(c, l)
      local sure = sureOf(c, l)
      if now < l.lookAt or mostUsed(c) <= sure then return end
      local grown = othersAt(l) > 0 and 0 or capOf(c, l, now) - sure
      l.lookAt, c.isAdapted = now + growthOf(c) / (LOOKS + LOOKS_PER_UNIT * grown), true
    end

    local function recall(c)
      local l = {}
      l.level, l.least, l.since, l.others, l.untilTime, l.lookAt, l.observedAt =
        unpacked(ADAPTIVE, call('HGET', partition, c.name .. '|learned'))
      if now < wholeAt(c, l) then c.adaptive = l end
    end

    -- What is noted, and for how long in microseconds.
    local function noted(c, l)
      return pack(ADAPTIVE, l.level, l.least, l.since, l.others, l.untilTime, l.lookAt, l.observedAt), GROWN_AT * growthOf(c)
    end

    -- What of it may be used; of how much it is not known whether others use it; from when a call may find out; when it is whole.
    local function told(c, l)
      return leftOf(c, l, now), capOf(c, l, now) - sureOf(c, l), l.lookAt - now, wholeAt(c, l) - now
    end

    adaptiveLimits = { allowedOf = allowedOf, applyFeedback = applyFeedback, look = look, recall = recall, noted = noted, told = told }
    return adaptiveLimits
  end

  function free(c, units)
    local used = c.kind == CALENDAR and mostUsed(c) or c.sum
    return (c.adaptive and withAdaptiveLimits().allowedOf(c, used + units) or c.allowed) - used
  end

  for i = 1, limits do
    if counters[i].wasAdapted then withAdaptiveLimits().recall(counters[i]) end
  end
  for _ = 1, ARGV[4] + 0 do
    for i = 1, limits do counters[i].units = ARGV[a + i] + 0 end
    a = a + limits + 1
    for _ = 1, ARGV[a] + 0 do
      local what = ARGV[a + 1]
      if what == 'pause' or what == 'refused' or what == 'counted' then
        a = withAdaptiveLimits().applyFeedback(what, a)
      else
        local at, calls, to = ARGV[a + 2] + 0, ARGV[a + 3] + 0, ARGV[a + 4] + 0
        a = a + 4
        local open
        if what == 'renew' then
          a = a + 1
          open = ARGV[a] + 0
        end
        for i = 1, limits do
          local c = counters[i]
          local isConcurrent = c.kind == CONCURRENT
          if c.kind == SMOOTHING and what ~= 'refund' then
            -- it counts when it was sent
          elseif open then
            local units = (isConcurrent and open or calls) * c.units
            charge(c, at, at + c.inFlightLease, -units)
            charge(c, to, to + c.inFlightLease, units)
          elseif isConcurrent == (what == 'leave') then
            local units = calls * c.units
            charge(c, at, at + c.inFlightLease, -units)
            if to > 0 then
              local latest = min(to, now)
              if what == 'abandon' then latest = latest + c.countingTolerance end
              charge(c, at, c.kind == CALENDAR and latest + c.countingTolerance or latest, units)
            end
          end
        end
      end
    end
  end
  for _ = 1, ARGV[5] + 0 do
    local c = counters[ARGV[a + 1] + 0]
    change(c, min(ARGV[a + 2] + 0, c.furthest), ARGV[a + 3] + 0)
    a = a + 3
  end

else
  for i = 1, limits do counters[i].units = ARGV[a + i] + 0 end
  a = a + limits + 1
end

-- Renews this gateway's leases: a share of what is free, nothing while others are refused because of leases.
if term > 0 then
  local isClaim = ARGV[7] == '1'
  local gateways, leased, own, ended, gone = 1, {}, {}, {}, {}
  local alive = { [gateway] = true }
  for f = 1, #noted, 2 do
    local limit, holder = noted[f]:match('^(.+)|([^|]+)$')
    local units, ends = noted[f + 1]:match('^(%d+) (%d+)')
    if holder == gateway then
      own[limit] = units + 0
    elseif ends + 0 < nowMs then
      ended[#ended + 1] = noted[f]
      gone[holder] = true
    else
      leased[limit] = (leased[limit] or 0) + units
      if not alive[holder] then
        alive[holder] = true
        gateways = gateways + 1
      end
    end
  end
  -- Not while this gateway waits for the others itself: whoever begins meanwhile must know that they were there.
  if #ended > 0 and not isClaim then
    call('HDEL', leases, unpack(ended))
    for holder in pairs(gone) do
      if not alive[holder] then call('HDEL', partition, holder) end
    end
  end
  for i = 1, limits do
    local c = counters[i]
    local others = leased[c.name] or 0
    local left = free(c, 0)
    local share = 0
    if nowMs >= c.pressure and c.kind ~= SMOOTHING then
      share = floor(left / (4 * gateways))
      -- Of small limits a lease of one, as long as that leaves half of what is free to whoever comes first.
      if share < 1 and others + 1 <= left / 2 then share = 1 end
    end
    local known = ARGV[a + i] + 0
    c.told = isClaim and known or max(0, min(share, left - others))
    -- A larger one stays reserved until the gateway knows of the smaller: it spends the larger if this answer gets lost.
    c.lease = max(c.told, min(known, own[c.name] or 0))
    c.leasedUntil, c.lasts = nowMs + term, term
    c.reserved = others + c.lease
    c.isRenewed = true
  end
end

local asked = pausedUntil > nowMs and 0 or wanted
local granted = asked
for i = 1, limits do
  local c = counters[i]
  c.left = isMore and free(c, c.units) or c.allowed - c.sum
  if c.reserved > 0 and c.left - c.reserved < asked * c.units then
    if not c.lease then readLease(c) end
    c.others = max(0, c.reserved - c.lease)
  end
  if c.units > 0 then granted = min(granted, floor((c.left - c.others) / c.units)) end
end
granted = max(granted, 0)

local answered = expected < 0 and not stored[1] and number == 1 and 0 or number
local reply, charges, adapted = pack('>dddd', now, answered, granted, limits), '', ''
if pausedUntil > nowMs then adapted = pack('>ddddd', 0, pausedUntil - nowMs, 0, 0, 0) end
local fields, n, leased = { gateway, (expected < 0 or isUsed) and number or ARGV[1], nil, nil, nil, nil }, 2, nil
for i = 1, limits do
  local c = counters[i]
  if granted > 0 then
    local units = granted * c.units
    if isMore then
      charge(c, now, now + c.inFlightLease, units)
    elseif units > 0 then
      local bucket = max(floor((now + c.inFlightLease) / c.bucket), c.current)
      if bucket > c.last then
        if c.count > 0 then c.entries = c.entries .. pack(ENTRY, c.last % SLOTS, c.count) end
        c.last, c.count = bucket, 0
      end
      if c.sum == 0 then c.oldest = bucket end
      c.count, c.sum = c.count + units, c.sum + units
    end
    if c.adaptive then adaptiveLimits.look(c, c.adaptive) end
    -- What the pool has no room for comes out of the lease.
    local taken = c.lease and min(c.lease, units - max(0, c.left - c.reserved)) or 0
    if taken > 0 then
      c.lease, c.reserved, c.isRenewed = c.lease - taken, c.reserved - taken, true
    end
  end
  if c.isRenewed then
    leased = leased or {}
    leased[#leased + 1] = c.name .. '|' .. gateway
    leased[#leased + 1] = string.format('%d %d %d', c.lease, c.leasedUntil, c.lasts)
  end

  local used, leaves = c.sum, 0
  if c.kind == CALENDAR then
    used, leaves = read(c, c.current), (c.current + 1) * c.bucket - now
  elseif used > 0 then
    leaves = (min(c.oldest, c.current) + c.kept + 1) * c.bucket - now
  end
  local lease = c.lease or -1
  reply = reply .. pack('>ddddd', used, leaves, isMore and free(c, 0) or c.allowed - used, min(c.told or lease, lease), c.others)
  if granted < wanted or hasWaited then
    local isRefused = granted < wanted and c.others > 0 and c.left - c.others < (granted + 1) * c.units
    local isScarce = hasWaited and c.left < c.allowed * SCARCE
    if c.units > 0 and (isRefused or isScarce) then c.pressure = nowMs + PRESSURE_MS end
    local list = {}
    if c.kept > 1 and c.units > 0 then
      local entries = readEarlier(c) .. c.entries .. (c.count > 0 and pack(ENTRY, c.last % SLOTS, c.count) or '')
      for at = 1, #entries, ENTRY_BYTES do
        local slot, count = unpacked(ENTRY, entries, at)
        list[#list + 1] = pack('>dd', c.first + (slot - c.first) % SLOTS, count)
      end
    end
    charges = charges .. pack('>d', 2 * #list) .. table.concat(list)
  end

  if isMore and #c.entries > MOST_BYTES then
    -- Those stay that change still: of calls in flight, and of those that were over a little before their gateway said so.
    local bytes = find(c, c.current - STIRRING) - 1 - ENTRY_BYTES
    if bytes > MOST_BYTES then
      c.earlier, c.hasEarlier = readEarlier(c) .. c.entries:sub(1, bytes), true
      c.entries = c.entries:sub(bytes + 1)
    end
  end
  if c.earlier then
    fields[n + 1], fields[n + 2], n = c.name .. '|earlier', c.earlier, n + 2
  end
  local l = c.adaptive
  if l then
    local effective, more, lookIn, wholeIn = adaptiveLimits.told(c, l)
    if effective < c.allowed then adapted = adapted .. pack('>ddddd', i, effective, more, lookIn, wholeIn) end
    if c.isAdapted then
      local record, lasts = adaptiveLimits.noted(c, l)
      live = max(live, lasts / 1000)
      fields[n + 1], fields[n + 2], n = c.name .. '|learned', record, n + 2
    end
  end
  fields[n + 1] = c.name
  fields[n + 2] = pack(
    HEADER, c.sum, c.oldest, c.current, c.reserved, c.pressure, (c.hasEarlier and 1 or 0) + (l and 2 or 0), c.last % SLOTS, c.count
  ) .. c.entries
  n = n + 2
end

if pauses then
  for name, ends in pairs(pauses) do
    live = max(live, ends - nowMs)
    fields[n + 1], fields[n + 2], n = name, ends, n + 2
  end
end
local isToLive = nowMs + live > (stored[1] or 0) + 0
local longer = floor(live * 1.25) -- so that this is not said with every call
if isToLive then
  fields[n + 1], fields[n + 2], n = '@until', nowMs + longer, n + 2
end
call('HSET', partition, unpack(fields))
if isToLive then call('PEXPIRE', partition, longer) end
if leased then
  call('HSET', leases, unpack(leased))
  call('PEXPIRE', leases, longer)
end
if hasWaited then
  local turns
  if granted > 0 then
    local calls, left = {}, granted
    for client in ARGV[a + 1]:gmatch('%d+') do
      if left == 0 then break end
      calls[client], left = (calls[client] or 0) + 1, left - 1
    end
    for client, n in pairs(calls) do
      local i = a + 2 * client
      call('HINCRBYFLOAT', KEYS[3], ARGV[i], ARGV[i + 1] * n)
    end
    turns = call('HINCRBY', KEYS[3], '', granted)
    call('PEXPIRE', KEYS[3], LEAST_LIFE_MS)
  else
    turns = (call('HGET', KEYS[3], '') or 0) + 0
  end
  charges = charges .. pack('>d', turns)
end
return reply .. charges .. adapted
