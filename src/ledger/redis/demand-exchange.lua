-- Where gateways tell each other who waits for one quota; see peers.ts. One hash has by gateway what it told last, and until when that
-- holds. Another has by client its virtual service, that is, the costs of its calls that were served, and in the field without a name
-- how many calls that were (charge/charge.lua adds both).
--
-- KEYS  1: what was told; 2: what was served; both in one hash slot
-- ARGV  1: the gateway   2: the time in microseconds, empty for Redis's own (only tests step it)
--       3: milliseconds for which it holds   4: its demands, a JSON array; empty when nobody waits there
-- Reply: JSON: what was served by client, how many calls that were, and of each other gateway where calls wait its demands, and
--        how long ago it told them
local call = redis.call
local now = timeMs(ARGV[2])
local gateway, demands = ARGV[1], cjson.decode(ARGV[4])

-- Fails if the text is not what a gateway tells.
local function read(text)
  local report = cjson.decode(text)
  for _, demand in ipairs(report.demands) do assert(type(demand.client) == 'string') end
  return { at = report.at + 0, ends = report.ends + 0, demands = report.demands }
end

local waiting, wasWaiting, others = {}, {}, {}
local told = call('HGETALL', KEYS[1])
for i = 1, #told, 2 do
  local name = told[i]
  local isRead, report = pcall(read, told[i + 1])
  -- Otherwise no gateway would hear of another until that report is gone.
  if not isRead or report.ends < now then
    call('HDEL', KEYS[1], name)
  else
    for _, demand in ipairs(report.demands) do
      wasWaiting[demand.client] = true
      if name ~= gateway then waiting[demand.client] = true end
    end
    if name ~= gateway then others[#others + 1] = { agoMs = now - report.at, demands = report.demands } end
  end
end

local virtualService = {}
local sums = call('HGETALL', KEYS[2])
for i = 1, #sums, 2 do virtualService[sums[i]] = tonumber(sums[i + 1]) end
local turns = virtualService[''] or 0
virtualService[''] = nil
local least = math.huge
for client in pairs(wasWaiting) do least = math.min(least, virtualService[client] or 0) end
if least == math.huge then least = 0 end

for _, demand in ipairs(demands) do
  local client = demand.client
  waiting[client] = true
  -- A client that comes anew begins where the others are. It can't make up for what it did not want earlier.
  if not wasWaiting[client] and (virtualService[client] or -1) < least then
    virtualService[client] = least
    call('HSET', KEYS[2], client, string.format('%.17g', least))
  end
end
for client, sum in pairs(virtualService) do
  if not waiting[client] and sum <= least then
    virtualService[client] = nil
    call('HDEL', KEYS[2], client)
  end
end

if #demands > 0 then
  call('HSET', KEYS[1], gateway, cjson.encode({ at = now, ends = now + ARGV[3], demands = demands }))
else
  call('HDEL', KEYS[1], gateway)
end
if next(waiting) then
  call('PEXPIRE', KEYS[1], 60000)
  call('PEXPIRE', KEYS[2], 60000)
else
  call('DEL', KEYS[2])
end
return cjson.encode({ virtualService = virtualService, turns = turns, others = others })
