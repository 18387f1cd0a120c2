--- A table of string keys that remembers their order: what state_dict() returns.
--
-- It is a plain table as far as reading, writing and `pairs` go (`sd["0.weight"]`); `for key, value in sd:iter()`
-- goes in order, `sd:keys()` lists the keys, `sd:len()` counts them. Setting nil removes. Keys are the owner's; a
-- key that equals a method's name shadows the method, `ordered_dict.iter(sd)` always works.

local M = {}
local methods = {}

local function next_of(state)
    local self, keys = state.self, state.keys
    local i = state.i
    while true do
        i = i + 1
        local key = keys[i]
        if key == nil then
            return nil
        end
        local value = rawget(self, key)
        if value ~= nil then
            state.i = i
            return key, value
        end
    end
end

--- Iterates over key, value in the order of insertion.
function M.iter(self)
    return next_of, { self = self, keys = getmetatable(self).keys, i = 0 }
end
methods.iter = M.iter

--- The keys, in order.
---@return string[]
function M.keys(self)
    local result = {}
    for key in M.iter(self) do
        result[#result + 1] = key
    end
    return result
end
methods.keys = M.keys

--- How many keys there are.
---@return integer
function M.len(self)
    return #M.keys(self)
end
methods.len = M.len

--- Is the value an ordered dictionary?
function M.is(value)
    local meta = type(value) == "table" and getmetatable(value)
    return type(meta) == "table" and meta.ordered_dict == true
end

--- Makes an ordered dictionary, empty or from a list of {key, value}.
---@param items table[]?
function M.new(items)
    local keys, known = {}, {}
    local self = setmetatable({}, {
        ordered_dict = true,
        keys = keys,
        __index = methods,
        __newindex = function(self, key, value)
            if value ~= nil then
                if not known[key] then
                    known[key] = true
                    keys[#keys + 1] = key
                end
                rawset(self, key, value)
            end
        end,
    })
    for _, item in ipairs(items or {}) do
        self[item[1]] = item[2]
    end
    return self
end

return M
