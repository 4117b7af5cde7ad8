-- Part 2 of 4: counters are read, and brought up to now. A counter is one string:
--   a header: the sum of all charges; the oldest bucket with charges; the current bucket; the units reserved for leases, and until
--     when these are wanted back (ms); a flag of 1 for earlier entries, and one of 2 for an adaptive limit, which has its own field;
--     the last bucket with charges, modulo SLOTS; its count
--   an entry for each other bucket with charges, oldest first: its number modulo SLOTS, its count
-- Where there are many entries, the early ones, which do not change any more, are in the field `…|earlier`.
local HEADER, HEADER_BYTES = '>I4I6I6I4I6BBI4', 32
local ENTRY, ENTRY_BYTES = '>BI4', 5
-- More than four bytes hold would be taken for few. A limit that is not enforced may have more, and one that calls exceed when their
-- cost is known. A bucket counts no more than that; where the sum is as much, it is computed anew when it is read.
-- Of money such a sum is rounded, and what is taken from it would leave a little too much or too little.
local MOST = 2 ^ 32 - 1
-- Money is counted in billionths, which are more than four bytes hold.
local HEADER_OF_MONEY, HEADER_BYTES_OF_MONEY = '>I7I6I6I7I6BBI7', 41
local ENTRY_OF_MONEY, ENTRY_BYTES_OF_MONEY = '>BI7', 8
local MOST_MONEY = 2 ^ 53
-- So many bytes of entries stay in the counter, where every call reads them.
local MOST_BYTES = 16 * ENTRY_BYTES
-- So many buckets before the current one may still change: calls end a little before their gateway says so.
local STIRRING = 6
local KEPT = { [ROLLING] = BUCKETS, [CALENDAR] = 1, [DATED] = 1, [CONCURRENT] = 0, [SMOOTHING] = BUCKETS }

-- How a limit of the kind DATED tells its windows, which are those of a calendar: the number of a window, when it begins, and when
-- the four after it begin. Now lies in one of the first three.
local DATES = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'

local counters = {}
-- The number of the window in which a time lies, of those that are told. It is made where a limit tells some.
local datedAt

local function readEarlier(c)
  return c.earlier or c.hasEarlier and call('HGET', partition, c.name .. '|earlier') or ''
end

-- What gateways of an older release, which have ended, charged to a limit since the bucket `first`. It is not known here when
-- each charge leaves, so all of them count as made now. Since format 2 a counter begins with the sum of its charges, its oldest
-- bucket and its current one.
local function chargedBefore(i, first)
  -- Format 2 had a string for each limit. An error says that this is no string, or that the user of Redis may not read one.
  local record = KEYS[3 + i] and redis.pcall('GET', KEYS[3 + i])
  if type(record) ~= 'string' then record = redis.pcall('HGET', older, ARGV[SCALARS + i]) end
  if type(record) ~= 'string' then return 0 end
  local sum, _, current = unpacked('>I4I6I6', record)
  return current >= first and sum or 0
end

local function readLease(c)
  c.lease, c.leasedUntil, c.lasts = 0, 0, 0
  local lease = call('HGET', leases, c.name .. '|' .. gateway)
  if lease then
    local units, ends, lasts = lease:match('^(%d+) (%d+) (%d+)$')
    c.lease, c.leasedUntil, c.lasts = units + 0, ends + 0, lasts + 0
  end
end

-- Most calls only charge to the last bucket of rolling windows, or to a new one. `isMore` says that this call does something else,
-- and the functions for that are made only then.
local isMore = term > 0 or chargeSets ~= '1' or additions ~= '0' or ARGV[SCALARS + (FIELDS + 2) * limits + 1] ~= '0'
-- For how long the partition is kept from now on, in milliseconds.
local live = max(LEAST_LIFE_MS, term)
-- How many arguments have been read.
local a = SCALARS + limits
for i = 1, limits do
  local name, kind, bucketLength = ARGV[SCALARS + i], ARGV[a + 1], ARGV[a + 3]
  local header, headerBytes, entry, entryBytes, most = HEADER, HEADER_BYTES, ENTRY, ENTRY_BYTES, MOST
  if #kind > 1 then
    kind, header, headerBytes = kind:sub(1, 1), HEADER_OF_MONEY, HEADER_BYTES_OF_MONEY
    entry, entryBytes, most = ENTRY_OF_MONEY, ENTRY_BYTES_OF_MONEY, MOST_MONEY
  end
  local kept = KEPT[kind]
  local bucket, starts
  if kind == DATED then
    datedAt = datedAt or function(starts, time)
      local n = 5
      while n > 0 and time < starts[n] do n = n - 1 end
      return starts.first + n
    end
    local first, s1, s2, s3, s4, s5 = bucketLength:match(DATES)
    starts = { s1 + 0, s2 + 0, s3 + 0, s4 + 0, s5 + 0, first = first - 1 }
    -- The gateway was mistaken about the time. Nothing is done, and the reply tells it.
    if now < starts[1] or now >= starts[4] then return pack('>dddd', now, number, -1, 0) end
    kind, bucket, bucketLength = CALENDAR, datedAt(starts, now), 0
  else
    bucketLength = bucketLength + 0
    bucket = floor(now / bucketLength)
  end
  local sum, oldest, current, reserved, pressure, flags, slot, count = 0, 0, 0, 0, 0, 0, 0, 0
  local entries, earlier, isAdapted, last = '', nil, false, 0
  local record = stored[i + 3]
  if record then
    sum, oldest, current, reserved, pressure, flags, slot, count = unpacked(header, record)
    if #record > headerBytes then entries = record:sub(headerBytes + 1) end
    last = current - kept + (slot - current + kept) % SLOTS
    if flags >= 2 then flags, isAdapted = flags - 2, true end
  end
  local isMost = sum == most
  if kind == CALENDAR and current > bucket + kept then
    -- The clock was ahead by more than a window, and was set right. Which charges were made in this window is not known.
    oldest, current, last, entries, count = bucket, bucket, bucket, '', sum
  elseif kind == CONCURRENT and current > bucket + SLOTS then
    -- The same of calls in flight, which are charged ahead. No call would leave until the clock is there again.
    if flags == 1 then earlier, flags = '', 0 end
    last = min(bucket + ceil(ARGV[a + 4] / bucketLength), bucket + SLOTS - 1)
    oldest, current, entries, count = last, bucket, '', sum
  end
  local behind = current > bucket and current - bucket or 0 -- a clock that was set back stands still
  if bucket > current then
    local first, before = bucket - kept, current - kept
    if sum == 0 or last < first then
      if flags == 1 then earlier, flags = '', 0 end
      sum, entries, last, count = 0, '', bucket, 0
    elseif oldest < first then
      -- The entries that still count; the others are taken from the sum.
      local function rest(some)
        for at = 1, #some, entryBytes do
          local one, units = unpacked(entry, some, at)
          oldest = before + (one - before) % SLOTS
          if oldest >= first then return some:sub(at) end
          sum = sum - units
        end
        oldest = last
        return ''
      end
      if flags == 1 then
        earlier = rest(call('HGET', partition, name .. '|earlier') or '')
        if earlier == '' then flags = 0 end
      end
      if flags == 0 then entries = rest(entries) end
    end
    current = bucket
    local left = starts and starts[min(5, bucket - starts.first + 2)] + ARGV[a + 5] - now or (kept + 3) * bucketLength
    live = max(live, (left + ARGV[a + 4]) / 1000)
  end
  if isMost then
    local all = (earlier or flags == 1 and call('HGET', partition, name .. '|earlier') or '') .. entries
    sum = count
    for at = 1, #all, entryBytes do
      local _, units = unpacked(entry, all, at)
      sum = sum + units
    end
    isMost = sum >= most
  end
  if older and not record then
    local units = chargedBefore(i, bucket - (kind == CALENDAR and 0 or kept))
    if units > 0 then sum, oldest, last, count = units, bucket, bucket, units end
  end
  local c = {
    name = name, kind = kind, allowed = ARGV[a + 2] + 0, bucket = bucketLength, starts = starts, inFlightLease = ARGV[a + 4] + 0,
    countingTolerance = ARGV[a + 5], units = 0, kept = kept, first = current - kept, furthest = current - kept + SLOTS - 1,
    behind = behind, sum = sum, oldest = oldest, current = current, reserved = reserved, pressure = pressure,
    hasEarlier = flags == 1, last = last, count = count, entries = entries, earlier = earlier, wasAdapted = isAdapted,
    header = header, entry = entry, entryBytes = entryBytes, most = most, isMost = isMost, left = 0, others = 0,
  }
  if number == 1 or expected < 0 then -- so that the gateway counts as alive until it renews its leases
    readLease(c)
    if c.leasedUntil < nowMs then c.lease = 0 end
    c.leasedUntil, c.isRenewed = nowMs + FIRST_TERM_MS, true
    c.lasts = expected < 0 and UNHEARD_MS or FIRST_TERM_MS
  end
  counters[i] = c
  isMore = isMore or isAdapted or kind == CALENDAR or last > floor((now + c.inFlightLease) / bucketLength)
  a = a + FIELDS
end

local find, read, change, charge, mostUsed, numberOf, beginOf
if isMore then
  -- The number of the bucket in which a time lies.
  function numberOf(c, time)
    return c.starts and datedAt(c.starts, time) or floor(time / c.bucket)
  end

  -- When a bucket of a calendar begins. Only a clock that was set back is in a window that is not told.
  function beginOf(c, bucket)
    local starts = c.starts
    return starts and starts[max(1, min(5, bucket - starts.first))] or bucket * c.bucket
  end

  -- Where the entry of a bucket that is not the last one is or belongs, and how many bytes it has. Entries are searched from the
  -- end, where the wanted one mostly is.
  function find(c, bucket)
    local entries, first, entryBytes = c.entries, c.first, c.entryBytes
    for at = #entries - entryBytes + 1, 1, -entryBytes do
      local ahead = first + (entries:byte(at) - first) % SLOTS - bucket
      if ahead == 0 then return at, entryBytes end
      if ahead < 0 then return at + entryBytes, 0 end
    end
    if not c.hasEarlier then return 1, 0 end
    c.entries, c.earlier, c.hasEarlier = readEarlier(c) .. entries, '', false
    return find(c, bucket)
  end

  -- The units that are charged to a bucket.
  function read(c, bucket)
    if bucket >= c.last then return bucket == c.last and c.count or 0 end
    local at, bytes = find(c, bucket)
    if bytes == 0 then return 0 end
    local _, count = unpacked(c.entry, c.entries, at)
    return count
  end

  -- Adds units to a bucket, or takes them back, but no more than there are.
  function change(c, bucket, units)
    if bucket < c.first or units == 0 then return end
    if bucket > c.last then
      if units < 0 then return end
      if c.count > 0 then c.entries = c.entries .. pack(c.entry, c.last % SLOTS, c.count) end
      c.last, c.count = bucket, 0
    end
    if bucket == c.last then
      units = min(max(units, -c.count), c.most - c.count)
      c.count = c.count + units
    else
      local at, bytes = find(c, bucket)
      local entries, count = c.entries, 0
      if bytes > 0 then
        local _
        _, count = unpacked(c.entry, entries, at)
      end
      units = min(max(units, -count), c.most - count)
      local entry = count + units > 0 and pack(c.entry, bucket % SLOTS, count + units) or ''
      c.entries = entries:sub(1, at - 1) .. entry .. entries:sub(at + bytes)
    end
    if units > 0 and (c.sum == 0 or bucket < c.oldest) then c.oldest = bucket end
    c.sum = c.sum + units
    if units < 0 and bucket == c.oldest and read(c, bucket) == 0 then -- so there are no earlier entries
      c.oldest = c.entries ~= '' and c.first + (c.entries:byte() - c.first) % SLOTS or c.last
    end
  end

  -- Adds units, or takes them back, of calls sent at `at` that the upstream may count until `to`. They leave a rolling window one
  -- window after the latest of these times. Of a calendar they count in every window in which they may be counted.
  function charge(c, at, to, units)
    local last = numberOf(c, to)
    if units > 0 then last = to < now and last + c.behind or max(last, c.current) end
    for bucket = c.kind == CALENDAR and numberOf(c, at - c.countingTolerance) or last, last do
      if bucket <= c.furthest then
        change(c, bucket, units)
      elseif units > 0 then
        change(c, c.furthest, units)
      end
    end
  end

  -- The most units in one of the windows in which a call that is sent now may be counted.
  function mostUsed(c)
    if c.kind ~= CALENDAR then return c.sum end
    local most, last = 0, numberOf(c, now + c.inFlightLease)
    for bucket = numberOf(c, now - c.countingTolerance), last do most = max(most, read(c, bucket)) end
    return most
  end
end
