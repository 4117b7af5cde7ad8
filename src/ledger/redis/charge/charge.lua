-- Part 4 of 4: changes are applied, leases are taken, calls are charged; then everything is written, and answered.

-- Where a call is refused because of leases, or one that had waited finds less than SCARCE of the limit free, no leases are taken for
-- PRESSURE_MS. What is free is due to calls that wait, and they would have to wait until the leases are given back.
local PRESSURE_MS, SCARCE = 2000, 0.1
-- Lua passes on no more than some thousand values at once.
local MOST_VALUES = 2000
-- So many leases of limits that a call does not concern are looked at, to find those that have ended.
local MOST_LOOKED_AT = 1000

if isMore then
  for i = 1, limits do
    if counters[i].wasAdapted then withAdaptiveLimits().recall(counters[i]) end
  end
  for _ = 1, chargeSets + 0 do
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
            -- such a limit counts calls when they are sent, and never again
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
  for _ = 1, additions + 0 do
    local c = counters[ARGV[a + 1] + 0]
    change(c, min(ARGV[a + 2] + 0, c.furthest), ARGV[a + 3] + 0)
    a = a + 3
  end
else
  for i = 1, limits do counters[i].units = ARGV[a + i] + 0 end
  a = a + limits + 1
end

-- Leases. A gateway gets a share of what is free, and nothing while calls are refused because of leases.
if term > 0 then
  local gateways, ofOthers, own, ended, gone, held, isHere = 1, {}, {}, {}, {}, {}, {}
  local alive = { [gateway] = true }
  for i = 1, limits do isHere[counters[i].name] = true end
  -- A partition may have tens of thousands of leases. Of limits that are not here all are looked at by turns: to take each apart
  -- every time would be more than half of the work. By the golden ratio, all have their turn however many calls lie between two that take
  -- leases. By the number alone, some never had it where both are even.
  local every = ceil(#noted / 2 / MOST_LOOKED_AT)
  local turn = floor(number * 0.6180339887498949 % 1 * every)
  local seek, cut = string.find, string.sub
  for f = 1, #noted, 2 do
    local name = noted[f]
    local last = seek(name, '|', 1, true)
    local another = seek(name, '|', last + 1, true)
    while another do last, another = another, seek(name, '|', another + 1, true) end
    local limit, holder = cut(name, 1, last - 1), cut(name, last + 1)
    held[holder] = (held[holder] or 0) + 1
    if isHere[limit] or (f + 1) / 2 % every == turn then
      local units, ends = noted[f + 1]:match('^(%d+) (%d+)')
      if holder == gateway then
        own[limit] = units + 0
      elseif ends + 0 < nowMs then
        ended[#ended + 1] = name
        gone[holder] = (gone[holder] or 0) + 1
      else
        ofOthers[limit] = (ofOthers[limit] or 0) + units
        if not alive[holder] then
          alive[holder] = true
          gateways = gateways + 1
        end
      end
    end
  end
  -- Leases that have ended are removed, but not while this gateway itself waits for the others to tell what Redis has lost: a gateway
  -- that begins meanwhile must see that they were there.
  if #ended > 0 and not isClaim then
    for first = 1, #ended, MOST_VALUES do
      call('HDEL', leases, unpack(ended, first, min(first + MOST_VALUES - 1, #ended)))
    end
    for holder, leasesGone in pairs(gone) do
      if leasesGone == held[holder] then call('HDEL', partition, holder) end
    end
  end
  for i = 1, limits do
    local c = counters[i]
    local others = ofOthers[c.name] or 0
    local unused = free(c, 0)
    local share = 0
    -- Of a limit that is not enforced nobody needs a lease. It would leave nothing to gateways whose configuration enforces it already.
    if nowMs >= c.pressure and c.kind ~= SMOOTHING and c.allowed < ANY then
      share = floor(unused / (4 * gateways))
      -- Of a small limit the lease is one unit, as long as half of what is free is left to whoever comes first.
      if share < 1 and others + 1 <= unused / 2 then share = 1 end
    end
    local known = ARGV[a + i] + 0
    c.told = isClaim and known or max(0, min(share, unused - others))
    -- If the gateway's lease shrinks, the larger one stays reserved until the gateway knows: should this reply get lost, it goes on
    -- to spend the larger one.
    c.lease = max(c.told, min(known, own[c.name] or 0))
    c.leasedUntil, c.lasts = nowMs + term, term
    c.reserved = others + c.lease
    c.isRenewed = true
  end
end

-- How many calls fit into every limit that is enforced.
local asked = pausedUntil > nowMs and 0 or wanted
local granted = asked
for i = 1, limits do
  local c = counters[i]
  c.left = isMore and free(c, c.units) or c.allowed - c.sum
  if c.reserved > 0 and c.left - c.reserved < asked * c.units then
    if not c.lease then readLease(c) end
    c.others = max(0, c.reserved - c.lease)
  end
  if c.units > 0 and c.allowed < ANY then granted = min(granted, floor((c.left - c.others) / c.units)) end
end
granted = max(granted, 0)

-- The calls are charged. What changed is collected to be written, and the reply is made.
local answered = expected < 0 and not stored[1] and number == 1 and 0 or number
local replies, charges, adapted = { pack('>dddd', now, answered, granted, limits) }, '', ''
if pausedUntil > nowMs then adapted = pack('>ddddd', 0, pausedUntil - nowMs, 0, 0, 0) end
-- The text of a number is written where there is one: to make one of a number takes Redis half a microsecond.
local counted = expected < 0 and number - 1 or isUsed and number or expectedText
local fields, n, renewed = { gateway, counted, nil, nil, nil, nil }, 2, nil
for i = 1, limits do
  local c = counters[i]
  if granted > 0 then
    local units = granted * c.units
    if isMore then
      charge(c, now, now + c.inFlightLease, units)
    elseif units > 0 then
      local bucket = max(floor((now + c.inFlightLease) / c.bucket), c.current)
      if bucket > c.last then
        if c.count > 0 then c.entries = c.entries .. pack(c.entry, c.last % SLOTS, c.count) end
        c.last, c.count = bucket, 0
      end
      if c.sum == 0 then c.oldest = bucket end
      local added = min(units, c.most - c.count)
      c.count, c.sum = c.count + added, c.sum + added
    end
    if c.adaptive then adaptiveLimits.look(c, c.adaptive) end
    -- What does not fit into the units that are leased to nobody comes out of this gateway's lease.
    local taken = c.lease and min(c.lease, units - max(0, c.left - c.reserved)) or 0
    if taken > 0 then
      c.lease, c.reserved, c.isRenewed = c.lease - taken, c.reserved - taken, true
    end
  end
  if c.isRenewed then
    renewed = renewed or {}
    renewed[#renewed + 1] = c.name .. '|' .. gateway
    renewed[#renewed + 1] = string.format('%d %d %d', c.lease, c.leasedUntil, c.lasts)
  end

  local used, leaves = c.sum, 0
  if c.kind == CALENDAR then
    used, leaves = read(c, c.current), beginOf(c, c.current + 1) - now
  elseif used > 0 then
    leaves = (min(c.oldest, c.current) + c.kept + 1) * c.bucket - now
  end
  local lease = c.lease or -1
  local unused = isMore and free(c, 0) or c.allowed - used
  -- A sum of money may be more than a reply can tell: the gateway would take it for garbled.
  replies[i + 1] = pack('>ddddd', min(used, MOST_TOLD), leaves, max(unused, -MOST_TOLD), min(c.told or lease, lease), c.others)
  if granted < wanted or hasWaited then
    local isRefused = granted < wanted and c.others > 0 and c.left - c.others < (granted + 1) * c.units
    local isScarce = hasWaited and c.left < c.allowed * SCARCE
    if c.units > 0 and (isRefused or isScarce) then c.pressure = nowMs + PRESSURE_MS end
    local list = {}
    if c.kept > 1 and c.units > 0 then
      local entries = readEarlier(c) .. c.entries .. (c.count > 0 and pack(c.entry, c.last % SLOTS, c.count) or '')
      for at = 1, #entries, c.entryBytes do
        local slot, count = unpacked(c.entry, entries, at)
        list[#list + 1] = pack('>dd', c.first + (slot - c.first) % SLOTS, min(count, MOST_TOLD))
      end
    end
    charges = charges .. pack('>d', 2 * #list) .. table.concat(list)
  end

  if isMore and #c.entries > MOST_BYTES then
    -- Entries that may still change stay: those of calls in flight, and of calls that ended a little before their gateway said so.
    local bytes = find(c, c.current - STIRRING) - 1 - c.entryBytes
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
    if effective < c.allowed and c.allowed < ANY then adapted = adapted .. pack('>ddddd', i, effective, more, lookIn, wholeIn) end
    if c.isAdapted then
      local record, lasts = adaptiveLimits.noted(c, l)
      live = max(live, lasts / 1000)
      fields[n + 1], fields[n + 2], n = c.name .. '|learned', record, n + 2
    end
  end
  fields[n + 1] = c.name
  fields[n + 2] = pack(
    c.header, c.isMost and c.most or min(c.sum, c.most), c.oldest, c.current, min(c.reserved, c.most), c.pressure, (c.hasEarlier and 1 or 0) + (l and 2 or 0), c.last % SLOTS, c.count
  ) .. c.entries
  n = n + 2
end

if pauses then
  for name, ends in pairs(pauses) do
    live = max(live, ends - nowMs)
    fields[n + 1], fields[n + 2], n = name, ends, n + 2
  end
end
local endsTooSoon = nowMs + live > keptUntil
local longer = floor(live * 1.25) -- more than is needed, so that not every call has to write it
if endsTooSoon then
  fields[n + 1], fields[n + 2], n = '@until', nowMs + longer, n + 2
end
for first = 1, n, MOST_VALUES do
  call('HSET', partition, unpack(fields, first, min(first + MOST_VALUES - 1, n)))
end
if endsTooSoon then call('PEXPIRE', partition, longer) end
if renewed then
  for first = 1, #renewed, MOST_VALUES do
    call('HSET', leases, unpack(renewed, first, min(first + MOST_VALUES - 1, #renewed)))
  end
  call('PEXPIRE', leases, longer)
end
if hasWaited then
  local turns
  if granted > 0 then
    local calls, unserved = {}, granted
    for client in ARGV[a + 1]:gmatch('%d+') do
      if unserved == 0 then break end
      calls[client], unserved = (calls[client] or 0) + 1, unserved - 1
    end
    for client, n in pairs(calls) do
      local i = a + 2 * client
      call('HINCRBYFLOAT', service, ARGV[i], ARGV[i + 1] * n)
    end
    turns = call('HINCRBY', service, '', granted)
    call('PEXPIRE', service, LEAST_LIFE_MS)
  else
    turns = (call('HGET', service, '') or 0) + 0
  end
  charges = charges .. pack('>d', turns)
end
return table.concat(replies) .. charges .. adapted
