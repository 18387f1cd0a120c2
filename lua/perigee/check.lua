--- Argument checks shared by the library's Lua modules: errors at the user's line, options tables, integers.
--
-- The user's line is the first frame outside this library: a wrong call deep inside `nn` is reported where the user
-- made it.

local M = {}

-- ".../lua/perigee/": every chunk below it is the library's own.
local OWN = debug.getinfo(1, "S").source:match("^(.*[/\\])check%.lua$") or "@?"

--- Raises a formatted error at the first frame whose chunk is not the library's.
---@param format string
---@return nil never returns
function M.fail(format, ...)
    local message = select("#", ...) > 0 and format:format(...) or format
    local level = 2
    while true do
        local info = debug.getinfo(level, "S")
        if not info then
            error(message, 0)
        end
        if info.what ~= "C" and info.source:sub(1, #OWN) ~= OWN then
            error(message, level)
        end
        level = level + 1
    end
end

--- What a value is, for messages: "nil", "number 2.5", "string \"x\"", "Linear", "Tensor".
function M.describe(value)
    local kind = type(value)
    if kind == "number" or kind == "boolean" then
        return kind .. " " .. tostring(value)
    elseif kind == "string" then
        return ("string %q"):format(#value > 40 and value:sub(1, 37) .. "..." or value)
    elseif kind == "table" and type(value._get_name) == "function" then
        return value:_get_name()
    elseif kind == "cdata" then
        local ok, shape = pcall(function() return value.shape end)
        if ok and type(shape) == "table" then
            return "Tensor [" .. table.concat(shape, ", ") .. "]"
        end
    end
    return kind
end

local function sorted_keys(t)
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = tostring(key)
    end
    table.sort(keys)
    return keys
end
M.sorted_keys = sorted_keys

--- Edit distance, capped: enough for "did you mean".
local function distance(a, b)
    local previous = {}
    for j = 0, #b do
        previous[j] = j
    end
    for i = 1, #a do
        local current = { [0] = i }
        for j = 1, #b do
            local cost = a:byte(i) == b:byte(j) and 0 or 1
            current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
        end
        previous = current
    end
    return previous[#b]
end

--- The closest of `names` to `name`, or nil where none is close.
---@param name string
---@param names string[]
---@return string?
function M.nearest(name, names)
    local best, best_distance = nil, math.max(1, math.floor(#name / 3)) + 1
    for _, candidate in ipairs(names) do
        local d = distance(name, candidate)
        if d < best_distance then
            best, best_distance = candidate, d
        end
    end
    return best
end

--- Completes an options table with its defaults; an unknown key is an error that lists the known ones.
---@param where string the function's name, for messages
---@param options table?
---@param defaults table known keys with defaults; a default of `check.none` means nil
---@return table a fresh table
function M.options(where, options, defaults)
    local result = {}
    for key, value in pairs(defaults) do
        if value ~= M.none then
            result[key] = value
        end
    end
    if options == nil then
        return result
    end
    if type(options) ~= "table" then
        M.fail("%s: the options must be a table, got %s", where, M.describe(options))
    end
    for key, value in pairs(options) do
        if defaults[key] == nil then
            local names = sorted_keys(defaults)
            local near = type(key) == "string" and M.nearest(key, names)
            M.fail("%s: unknown option %s%s; known: %s", where, tostring(key),
                near and (" (did you mean %s?)"):format(near) or "", table.concat(names, ", "))
        end
        result[key] = value
    end
    return result
end

--- Marks an option without a default.
M.none = setmetatable({}, { __tostring = function() return "nil" end })

-- A non-empty table whose keys are all strings, and no object.
local function is_options(value)
    if type(value) ~= "table" or getmetatable(value) ~= nil or next(value) == nil then
        return false
    end
    for key in pairs(value) do
        if type(key) ~= "string" then
            return false
        end
    end
    return true
end

--- Reads a call's arguments: positions in order, then an options table that may name any of them. A name given twice,
-- an unknown one, and a surplus position are errors.
---@param where string the function's name, for messages
---@param positions string[] names in order
---@param defaults table every name with its default; `check.none` for nil
---@return table name -> value
function M.arguments(where, positions, defaults, ...)
    local n, options = select("#", ...), nil
    if n > 0 and is_options((select(n, ...))) then
        options = select(n, ...)
        n = n - 1
    end
    local result = M.options(where, options, defaults)
    for i = 1, n do
        local value, name = select(i, ...), positions[i]
        if value ~= nil then
            if not name then
                M.fail("%s: takes at most %d arguments (%s), got %d", where, #positions,
                    table.concat(positions, ", "), n)
            elseif options and options[name] ~= nil then
                M.fail("%s: %s is given twice, by position and as an option", where, name)
            end
            result[name] = value
        end
    end
    return result
end

--- Checks that a value is an integer within [low, high] and returns it.
function M.integer(where, name, value, low, high)
    if type(value) ~= "number" or value % 1 ~= 0 then
        M.fail("%s: %s must be an integer, got %s", where, name, M.describe(value))
    end
    if (low and value < low) or (high and value > high) then
        M.fail("%s: %s must be %s, got %d", where, name,
            high and ("in [%d, %d]"):format(low or -2 ^ 53, high) or ("at least %d"):format(low), value)
    end
    return value
end

--- Checks that a value is a number within [low, high] and returns it.
function M.number(where, name, value, low, high)
    if type(value) ~= "number" or value ~= value then
        M.fail("%s: %s must be a number, got %s", where, name, M.describe(value))
    end
    if (low and value < low) or (high and value > high) then
        M.fail("%s: %s must be in [%s, %s], got %s", where, name, tostring(low or "-inf"), tostring(high or "inf"),
            tostring(value))
    end
    return value
end

--- A number as Python's repr writes a float: 0.5, 1e-05, 1.0. The shortest digits that read back the same.
---@param value number
---@return string
function M.float_repr(value)
    if value ~= value then
        return "nan"
    elseif value == math.huge then
        return "inf"
    elseif value == -math.huge then
        return "-inf"
    end
    local text
    for digits = 1, 17 do
        text = ("%." .. digits .. "g"):format(value)
        if tonumber(text) == value then
            break
        end
    end
    local mantissa, exponent = text:match("^(.-)e([+-]%d+)$")
    if exponent then
        local power = tonumber(exponent)
        if power >= 16 or power < -4 then
            return ("%se%s%02d"):format(mantissa, power < 0 and "-" or "+", math.abs(power))
        end
        text = ("%.0f"):format(value)   -- 1e+05: Python writes 100000.0
    end
    return text:find("[%.n]") and text or text .. ".0"
end

return M
