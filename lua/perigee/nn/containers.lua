--- Sequential, ModuleList, ModuleDict. Their keys count from 0, as PyTorch's state dicts have them: list[0],
-- list[-1].

local check = require("perigee.check")
local module = require("perigee.nn.module")

local M = {}

local function count(self)
    return #rawget(self, "_modules").names
end

local function position(self, i)
    local n = count(self)
    if type(i) ~= "number" or i % 1 ~= 0 or i < -n or i >= n then
        check.fail("index %s is out of range: %s has %d modules", tostring(i), self:_get_name(), n)
    end
    return i % n
end

-- What Sequential and ModuleList share: a list of modules named "0", "1", ...
local function list_methods(class)
    function class:_at(i)
        local modules = rawget(self, "_modules")
        return modules.values[modules.names[position(self, i) + 1]]
    end

    function class:_put(i, value)
        local modules = rawget(self, "_modules")
        if not module.is_module(value) then
            check.fail("%s is not a Module", check.describe(value))
        end
        self[modules.names[position(self, i) + 1]] = value
    end

    --- How many modules there are (Lua 5.1's # cannot ask).
    ---@return integer
    function class:len()
        return count(self)
    end

    --- for i, module in list:iter() do, i from 0.
    function class:iter()
        local modules, i = rawget(self, "_modules"), -1
        return function()
            i = i + 1
            local name = modules.names[i + 1]
            if name then
                return i, modules.values[name]
            end
        end
    end

    --- Puts a module at the end.
    function class:append(value)
        self:register_module(tostring(count(self)), value)
        return self
    end

    --- Puts each module of a list at the end.
    ---@param values Module[]
    function class:extend(values)
        for _, value in ipairs(values) do
            self:append(value)
        end
        return self
    end

    --- Puts a module before position i (from 0).
    function class:insert(i, value)
        local n = count(self)
        if type(i) ~= "number" or i % 1 ~= 0 or i < -n or i > n then
            check.fail("index %s is out of range: %s has %d modules", tostring(i), self:_get_name(), n)
        end
        i = i < 0 and i + n or i
        local values = {}
        for k, item in self:iter() do
            values[k] = item
        end
        self:append(value)
        for k = n, i + 1, -1 do
            self[tostring(k)] = values[k - 1]
        end
        self[tostring(i)] = value
        return self
    end
end

--- Calls its modules one after the other.
---@class Sequential: Module
local Sequential = module.class("Sequential")
M.Sequential = Sequential
list_methods(Sequential)

---@param ... Module or one list of {name, module}
function Sequential:__init(...)
    local first = ...
    if select("#", ...) == 1 and type(first) == "table" and not module.is_module(first) then
        for i, entry in ipairs(first) do
            if type(entry) ~= "table" or module.is_module(entry) or not module.is_module(entry[2]) then
                check.fail("Sequential: entry %d of the list must be {name, module}", i)
            end
            self:register_module(entry[1], entry[2])
        end
        return
    end
    for i = 1, select("#", ...) do
        self:register_module(tostring(i - 1), (select(i, ...)))
    end
end

function Sequential:forward(x, ...)
    if select("#", ...) > 0 then
        check.fail("Sequential takes one input, got %d", 1 + select("#", ...))
    end
    local modules = rawget(self, "_modules")
    for i = 1, #modules.names do
        x = modules.values[modules.names[i]](x)
    end
    return x
end

--- A list of modules; it has no forward.
---@class ModuleList: Module
local ModuleList = module.class("ModuleList")
M.ModuleList = ModuleList
list_methods(ModuleList)

---@param modules Module[]?
function ModuleList:__init(modules)
    if modules ~= nil and (type(modules) ~= "table" or module.is_module(modules)) then
        check.fail("ModuleList: expected a list of modules, got %s", check.describe(modules))
    end
    self:extend(modules or {})
end

-- Neighbours that print alike are one line: (0-3): 4 x Block(...).
function ModuleList:_repr()
    if count(self) == 0 then
        return self:_get_name() .. "()"
    end
    local groups = {}
    for i, item in self:iter() do
        local text = tostring(item)
        local last = groups[#groups]
        if last and last.text == text then
            last.stop = i
        else
            groups[#groups + 1] = { text = text, start = i, stop = i }
        end
    end
    local lines = {}
    for k, group in ipairs(groups) do
        local text = group.start == group.stop and ("(%d): %s"):format(group.start, group.text)
            or ("(%d-%d): %d x %s"):format(group.start, group.stop, group.stop - group.start + 1, group.text)
        lines[k] = module.indent(text)
    end
    return ("%s(\n  %s\n)"):format(self:_get_name(), table.concat(lines, "\n  "))
end

--- Modules by name; it has no forward. dict.name or dict[name] reads; for name, module in dict:named_children() goes
-- in order.
---@class ModuleDict: Module
local ModuleDict = module.class("ModuleDict")
M.ModuleDict = ModuleDict

---@param modules table? name -> module (registered in the names' order), or a list of {name, module}
function ModuleDict:__init(modules)
    modules = modules or {}
    if #modules > 0 then
        for _, entry in ipairs(modules) do
            self:register_module(entry[1], entry[2])
        end
        return
    end
    for _, name in ipairs(check.sorted_keys(modules)) do
        self:register_module(name, modules[name])
    end
end

function ModuleDict:len()
    return count(self)
end

return M
