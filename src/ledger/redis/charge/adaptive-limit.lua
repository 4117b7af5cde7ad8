-- Part 3 of 4: what the upstream's answers say of a limit. It does the same as adaptive-limit.ts, which explains it. Few limits are
-- adapted, so its functions are made when the first is.
local adaptiveLimits, withAdaptiveLimits, free
-- By field: until when the upstream wants no calls of an account.
local pauses
if isMore then
  function withAdaptiveLimits()
    if adaptiveLimits then return adaptiveLimits end
    -- The field `…|learned`: level, least, since, others, until, lookAt, observedAt.
    local FORMAT = '>ddddddd'

    local function growthOf(c)
      return c.starts and LONGEST_GROWTH or min(c.bucket * c.kept, LONGEST_GROWTH)
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

    -- The upstream refused a call that was charged at `at`.
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

    -- The upstream had counted so many units. Returns whether others use the limit.
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
      local window = c.kind == CALENDAR and beginOf(c, c.current + 1) + c.countingTolerance - now or c.bucket * c.kept
      l.others, l.untilTime, l.lookAt = excess + tolerance, now + window, now + min(reset, window)
      return true
    end

    -- Whether the others explain a refusal.
    local function excuse(c, at, reset)
      local l = c.adaptive
      if l.since > 0 then return l.level > c.allowed and at <= l.since end
      l.since, l.level, l.least = now + min(reset, growthOf(c)) + growthOf(c) / LOOKS, EXCUSED, 0
      return true
    end

    -- Applies the change at ARGV[at + 1]; returns where the next one begins.
    local function applyFeedback(what, at)
      local name = ARGV[at + 2]
      if what == 'pause' then
        pauses = pauses or {}
        local known = name == pauseField and pausedUntil or (call('HGET', partition, name) or 0) + 0
        pauses[name] = max(known, pauses[name] or 0, nowMs + ARGV[at + 3])
        if name == pauseField then pausedUntil = pauses[name] end
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

    -- A call was charged: if it finds out whether more gets through, the next one must wait for its answer.
    local function look(c, l)
      local sure = sureOf(c, l)
      if now < l.lookAt or mostUsed(c) <= sure then return end
      local grown = othersAt(l) > 0 and 0 or capOf(c, l, now) - sure
      l.lookAt, c.isAdapted = now + growthOf(c) / (LOOKS + LOOKS_PER_UNIT * grown), true
    end

    local function recall(c)
      local l = {}
      l.level, l.least, l.since, l.others, l.untilTime, l.lookAt, l.observedAt =
        unpacked(FORMAT, call('HGET', partition, c.name .. '|learned'))
      if now < wholeAt(c, l) then c.adaptive = l end
    end

    -- What is written, and for how many microseconds it matters.
    local function noted(c, l)
      return pack(FORMAT, l.level, l.least, l.since, l.others, l.untilTime, l.lookAt, l.observedAt), GROWN_AT * growthOf(c)
    end

    -- As the reply wants it.
    local function told(c, l)
      return leftOf(c, l, now), capOf(c, l, now) - sureOf(c, l), l.lookAt - now, wholeAt(c, l) - now
    end

    adaptiveLimits = {
      allowedOf = allowedOf, applyFeedback = applyFeedback, look = look, recall = recall, noted = noted, told = told,
    }
    return adaptiveLimits
  end

  -- What a call of so many units that is sent now can be charged; negative where more is charged than allowed.
  function free(c, units)
    local used = c.kind == CALENDAR and mostUsed(c) or c.sum
    return (c.adaptive and withAdaptiveLimits().allowedOf(c, used + units) or c.allowed) - used
  end
end
