-- Stands before the scripts that take the time: in milliseconds, of a text in microseconds; of an empty one Redis's own.
local function timeMs(micros)
  if micros ~= '' then return math.floor(micros / 1000) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

