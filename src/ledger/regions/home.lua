-- Moves the shares of limits between regions; region-shares.ts says what is asked, and docs/guarantees.md why it is safe.
--
-- A region may use of each limit its reserve, and beyond it what home has told it last, for `lease` from when it asked. What home
-- writes down is, for each region, a bound (`hold`) for what its calls may count beyond its reserve. Only what no bound covers is given
-- to another region. A bound falls when the region has measured that less is used, after all that it was told before has ended; or
-- when nothing was heard of the region for so long that all its calls have left the window.
--
-- KEYS  1 the partition: a hash, by limit a record   2 memory: which server this is, and since when it remembers everything
-- ARGV  1 the region that asks   2 microseconds instead of the time, or empty   3 the same for the identity of this server
--       4 lease in milliseconds   5 1 if calls are charged to the partition in the region   6, 7 time and identity of the answer before
--         which the region has measured (empty: it has not)   8 the names of all regions, with a blank between them
--       Then for each limit: its name; its terms, by which it is told whether gateways disagree; the pool, which is what the reserves
--         leave; the reserves, in the order of the regions; milliseconds after which the last call of a region that fell silent has left
--         the window; units that the region asks for; units used beyond the reserve, units needed, units of the next call (each empty
--         if not known).
-- Reply: a line with the time and the identity. Then a line for each limit: 1, or 0 if gateways with other terms are alive; milliseconds
--   since the region last asked for less, and since one of its gateways last charged calls; for each region its units, its bound, its
--   need, its next call.
local call, max, min = redis.call, math.max, math.min
-- Clocks run differently fast, and a charge may be on its way to the region's Redis when a share ends.
local MARGIN_MS = 2000
-- How long a region's need counts, unless a greater one is told.
local NEED_MS = 3000
local KEPT_MS = 86400000

local region, lease, isUsed = ARGV[1], ARGV[4] + 0, ARGV[5] == '1'
-- What was measured longer ago is not believed: what was told at that time is forgotten. A gateway with many partitions asks three
-- times in a lease, and one question may be lost: with less than a lease no bound would fall where leases are long.
local STALE_MS = max(10000, lease)
local now, identity = timeMs(ARGV[2]), ARGV[3]
if identity == '' then
  -- A replica that is promoted has another run_id than the server before it; a master that was its replica meanwhile, another replid.
  identity = call('INFO', 'server'):match('run_id:(%w+)') .. call('INFO', 'replication'):match('master_replid:(%w+)')
end
local known = call('HMGET', KEYS[2], 'identity', 'since')
local since = (known[2] or 0) + 0
if known[1] ~= identity then
  since = now
  call('HSET', KEYS[2], 'identity', identity, 'since', ('%d'):format(now))
end
local names = {}
for name in ARGV[8]:gmatch('%S+') do names[#names + 1] = name end
local measuredAt = ARGV[7] == identity and ARGV[6] + 0 >= now - STALE_MS and ARGV[6] + 0

local function silent(hold, settle)
  return { extra = 0, hold = hold, told = hold > 0 and { { hold, now } } or {}, at = now, settle = settle, need = 0, chunk = 0 }
end

-- The greatest share that may not have ended at that time.
local function greatestTold(r, time)
  local most = r.extra
  for _, one in ipairs(r.told) do
    if one[2] >= time - lease - MARGIN_MS then most = max(most, one[1]) end
  end
  return most
end

-- What was told counts until it has ended. A greater share that is told later counts for the smaller one, too.
local function tell(r)
  local told = {}
  for _, one in ipairs(r.told) do
    if one[1] > r.extra and one[2] >= now - lease - MARGIN_MS - STALE_MS then told[#told + 1] = one end
  end
  told[#told + 1] = { r.extra, now }
  r.told = told
end

-- Gateways with other terms have ended. Whoever used more than its new reserve still does, and may have used it after what was
-- measured before now. A region that fell silent may have had its share for the lease of before.
local function adopt(record, reserves)
  for name, r in pairs(record.regions) do
    r.hold, r.extra = max(0, (record.reserves[name] or 0) + r.hold - (reserves[name] or 0)), 0
    r.told = { { r.hold, now - lease - MARGIN_MS - 1 } }
    r.at = r.at + max(0, (record.lease or lease) - lease)
  end
end

local lines, fields, live = { ('%d %s'):format(now, identity) }, {}, 0
local wanted = {}
for a = 9, #ARGV, 9 do wanted[#wanted + 1] = ARGV[a] end
local stored = call('HMGET', KEYS[1], unpack(wanted))
for i, limit in ipairs(wanted) do
  local a = 9 * i
  local terms, pool, settle, want = ARGV[a + 1], ARGV[a + 2] + 0, ARGV[a + 4] + 0, ARGV[a + 5] + 0
  local over, need, chunk = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8])
  local reserves, n = {}, 0
  for units in ARGV[a + 3]:gmatch('%S+') do
    n = n + 1
    reserves[names[n]] = units + 0
  end
  local record = stored[i] and cmsgpack.unpack(stored[i])
  if record and record.identity ~= identity then record = nil end
  if not record then
    -- Nobody has more than its reserve, unless home has forgotten it.
    local hold = now - since < lease + MARGIN_MS + settle and pool or 0
    record = { identity = identity, terms = terms, heard = now, reserves = reserves, regions = {} }
    for _, name in ipairs(names) do record.regions[name] = silent(hold, settle) end
  end
  local isAgreed = record.terms == terms
  if not isAgreed and now - record.heard > (record.lease or lease) + MARGIN_MS then
    adopt(record, reserves)
    record.terms, record.reserves, isAgreed = terms, reserves, true
    for _, name in ipairs(names) do record.regions[name] = record.regions[name] or silent(0, settle) end
  end
  local own = record.regions[region] or silent(0, settle)
  if isAgreed then
    record.heard, record.lease = now, lease
    own.at, own.settle = now, max(own.settle, settle)
    if isUsed then own.used = now end
    if need and (need >= own.need or now - (own.needAt or 0) > NEED_MS) then
      own.need, own.chunk, own.needAt = need, chunk, now
    end
    if measuredAt and over then own.hold = max(greatestTold(own, measuredAt), over) end
    local free = pool
    for name, r in pairs(record.regions) do
      if r ~= own then
        if now - r.at > lease + MARGIN_MS + r.settle then
          r.extra, r.hold, r.told, r.need, r.chunk = 0, 0, {}, 0, 0
        end
        free = free - r.hold
      end
      live = max(live, r.settle)
    end
    if want < own.extra then
      own.extra, own.less = want, now
    else
      own.extra = max(own.extra, min(want, free))
    end
    own.hold = max(own.hold, own.extra)
    tell(own)
    fields[#fields + 1] = limit
    fields[#fields + 1] = cmsgpack.pack(record)
  end
  local line = ('%d %d %d'):format(isAgreed and 1 or 0, now - (own.less or 0), now - (own.used or 0))
  for _, name in ipairs(names) do
    local r = record.regions[name]
    line = line .. (isAgreed and (' %.0f %.0f %.0f %.0f'):format(r.extra, r.hold, r.need, r.chunk) or ' 0 0 0 0')
  end
  lines[#lines + 1] = line
end
if #fields > 0 then
  call('HSET', KEYS[1], unpack(fields))
  call('PEXPIRE', KEYS[1], ('%d'):format(lease + MARGIN_MS + live + KEPT_MS))
end
return table.concat(lines, '\n')
