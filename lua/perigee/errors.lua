--- Errors at the user's line, and suggestions for misspelt names.

local core = require "perigee.ffi"

local errors = {}

local ours = "@" .. core.folder .. "/"

local function is_ours(source)
    return source:sub(1, #ours) == ours or source:sub(1, 9) == "=perigee:"
end

--- Raises the message at the first frame whose chunk is not this library's.
---@param message string
function errors.raise(message)
    local level = 2
    while true do
        local info = debug.getinfo(level, "S")
        if not info then error(message, 0) end
        if info.what ~= "C" and not is_ours(info.source) then error(message, level) end
        level = level + 1
    end
end

--- Formats and raises.
---@param format string
function errors.fail(format, ...)
    return errors.raise(format:format(...))
end

-- Damerau's distance (adjacent swaps count one), given up beyond `limit`.
local function distance(a, b, limit)
    local n, m = #a, #b
    if math.abs(n - m) > limit then return limit + 1 end
    local before, last = nil, {}
    for j = 0, m do last[j] = j end
    for i = 1, n do
        local row = { [0] = i }
        local best = i
        for j = 1, m do
            local same = a:byte(i) == b:byte(j)
            local cost = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
            if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                cost = math.min(cost, before[j - 2] + 1)
            end
            row[j] = cost
            if cost < best then best = cost end
        end
        if best > limit then return limit + 1 end
        before, last = last, row
    end
    return last[m]
end

--- The candidates nearest to a misspelt name, best first, at most three.
---@param name string
---@param candidates string[]
---@return string[]
function errors.nearest(name, candidates)
    local limit = #name <= 3 and 1 or #name <= 6 and 2 or 3
    local lower, scored, seen = name:lower(), {}, {}
    for _, candidate in ipairs(candidates) do
        if not seen[candidate] then
            seen[candidate] = true
            local d = distance(lower, candidate:lower(), limit)
            if d <= limit then scored[#scored + 1] = { d, candidate } end
        end
    end
    table.sort(scored, function(x, y)
        if x[1] ~= y[1] then return x[1] < y[1] end
        return x[2] < y[2]
    end)
    local best = {}
    for k = 1, math.min(3, #scored) do
        if scored[k][1] > scored[1][1] then break end
        best[k] = scored[k][2]
    end
    return best
end

--- "; did you mean 'softmax'?" or "".
---@param name any
---@param candidates string[]
---@return string
function errors.did_you_mean(name, candidates)
    if type(name) ~= "string" then return "" end
    local best = errors.nearest(name, candidates)
    if #best == 0 then return "" end
    return "; did you mean '" .. table.concat(best, "' or '") .. "'?"
end

return errors
