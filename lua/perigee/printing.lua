--- Tensors as text, as PyTorch prints them. Only the elements that are shown are read.

local core = require "perigee.ffi"
local construct = require "perigee.construct"
local errors = require "perigee.errors"
local tensor = require "perigee.tensor"
local wrapper = require "perigee.wrapper"

local C = core.C

local printing = {}

local options = { precision = 4, threshold = 1000, edgeitems = 3, linewidth = 80, sci_mode = nil }

local known = {
    precision = "number", threshold = "number", edgeitems = "number", linewidth = "number", sci_mode = "boolean",
}

--- Sets how tensors print: precision (4), threshold (1000), edgeitems (3), linewidth (80), sci_mode ("auto":
--- chosen by the values).
---@param settings table
function printing.set_printoptions(settings)
    if type(settings) ~= "table" then
        errors.fail("set_printoptions: expected a table of options, got %s", wrapper.describe(settings))
    end
    wrapper.check_options(settings, known, "set_printoptions")
    for key, value in pairs(settings) do
        local unset = key == "sci_mode" and value == "auto"
        if type(value) ~= known[key] and not unset then
            errors.fail("set_printoptions: %s: expected a %s, got %s", key, known[key], wrapper.describe(value))
        end
        options[key] = value
        if unset then options[key] = nil end
    end
end

function printing.get_printoptions()
    local copy = {}
    for key, value in pairs(options) do copy[key] = value end
    return copy
end

local function nonfinite(v)
    if v ~= v then return "nan" end
    if v == math.huge then return "inf" end
    if v == -math.huge then return "-inf" end
end

--- How one element prints, from all that are shown: a function and the width.
local function formatter(values, floating)
    local width = 1
    if not floating then
        local function text(v)
            if type(v) == "boolean" then return v and "True" or "False" end
            if type(v) == "number" then return ("%.0f"):format(v) end
            return (tostring(v):gsub("U?LL$", ""))
        end
        for _, v in ipairs(values) do width = math.max(width, #text(v)) end
        return text, width
    end
    local least, most, integral = math.huge, 0, true
    for _, v in ipairs(values) do
        if v == v and v ~= 0 and v ~= math.huge and v ~= -math.huge then
            local a = math.abs(v)
            if a < least then least = a end
            if a > most then most = a end
            if math.ceil(v) ~= v then integral = false end
        end
    end
    local scientific = false
    local format
    local fixed, exponent = "%." .. options.precision .. "f", "%." .. options.precision .. "e"
    if most > 0 then
        scientific = most / least > 1000 or most > 1e8 or (not integral and least < 1e-4)
    end
    if options.sci_mode ~= nil and most > 0 then scientific = options.sci_mode end
    if scientific then
        format = function(v) return exponent:format(v) end
    elseif integral then
        format = function(v) return ("%.0f."):format(v) end
    else
        format = function(v) return fixed:format(v) end
    end
    for _, v in ipairs(values) do
        if v == v and v ~= 0 and v ~= math.huge and v ~= -math.huge then width = math.max(width, #format(v)) end
    end
    return function(v) return nonfinite(v) or format(v) end, width
end

--- The positions that are shown along a dimension of n.
local function shown(n, summarize)
    local list, edge = {}, options.edgeitems
    if summarize and n > 2 * edge then
        for k = 0, edge - 1 do list[#list + 1] = k end
        for k = n - edge, n - 1 do list[#list + 1] = k end
        return list, edge
    end
    for k = 0, n - 1 do list[k + 1] = k end
    return list, nil
end

local function element_text(t, indent)
    local shape, numel = t.shape, t:numel()
    local depth = #shape
    local summarize = numel > options.threshold
    local values, at = {}, {}           -- all that are shown; by row-major position
    local function read(start, n)
        construct.each(t, start, n, function(k, v)
            values[#values + 1] = v
            at[start + k] = v
        end)
    end
    if not summarize then
        read(0, numel)
    else
        local function visit(d, start)
            if d == depth then
                local list, edge = shown(shape[d], true)
                if edge then
                    if edge > 0 then
                        read(start, edge)
                        read(start + shape[d] - edge, edge)
                    end
                else
                    read(start, #list)
                end
                return
            end
            local inner = 1
            for k = d + 1, depth do inner = inner * shape[k] end
            for _, k in ipairs((shown(shape[d], true))) do visit(d + 1, start + k * inner) end
        end
        visit(1, 0)
    end
    local format, width = formatter(values, t.dtype.is_floating_point)
    local function cell(position)
        local text = format(at[position])
        return (" "):rep(width - #text) .. text
    end
    if depth == 0 then return cell(0) end

    local function vector(start, column)
        local n = shape[depth]
        local per_line = math.max(1, math.floor((options.linewidth - column) / (width + 2)))
        local items = {}
        local list, edge = shown(n, summarize)
        for k, position in ipairs(list) do
            if edge and k == edge + 1 then items[#items + 1] = " ..." end
            items[#items + 1] = cell(start + position)
        end
        if edge == 0 then items[1] = "..." end
        local lines = {}
        for k = 1, #items, per_line do
            lines[#lines + 1] = table.concat(items, ", ", k, math.min(k + per_line - 1, #items))
        end
        return "[" .. table.concat(lines, ",\n" .. (" "):rep(column + 1)) .. "]"
    end

    local function block(d, start, column)
        if d == depth then return vector(start, column) end
        local inner = 1
        for k = d + 1, depth do inner = inner * shape[k] end
        local parts = {}
        local list, edge = shown(shape[d], summarize)
        for k, position in ipairs(list) do
            if edge and k == edge + 1 then parts[#parts + 1] = "..." end
            parts[#parts + 1] = block(d + 1, start + position * inner, column + 1)
        end
        if edge == 0 then parts[1] = "..." end
        local separator = "," .. ("\n"):rep(depth - d) .. (" "):rep(column + 1)
        return "[" .. table.concat(parts, separator) .. "]"
    end
    return block(1, 0, indent)
end

local PARAMETER = 1     -- the handle's reserved word: nn marks parameters in it

--- The tensor as PyTorch prints it.
---@param t Tensor
---@return string
function printing.text(t)
    if C.pg_tensor_dtype(t) < 0 then return "tensor(<freed>)" end
    local indent = #"tensor("
    local suffixes = {}
    local kind, device = t.dtype, t.device
    if device ~= "cpu" then suffixes[#suffixes + 1] = ("device='%s'"):format(device) end
    local is_default = kind.number == C.pg_get_default_dtype()
    local body
    if t:numel() == 0 then
        if t:dim() ~= 1 then suffixes[#suffixes + 1] = "size=" .. tostring(t.shape) end
        if not is_default then suffixes[#suffixes + 1] = "dtype=" .. tostring(kind) end
        body = "[]"
    else
        if not is_default and kind.name ~= "int64" and kind.name ~= "bool" then
            suffixes[#suffixes + 1] = "dtype=" .. tostring(kind)
        end
        body = element_text(t, indent)
    end
    local grad_fn = t.grad_fn
    if grad_fn then
        suffixes[#suffixes + 1] = ("grad_fn=<%s>"):format(grad_fn)
    elseif t.requires_grad then
        suffixes[#suffixes + 1] = "requires_grad=True"
    end
    local text = "tensor(" .. body
    local last = #text - (text:match(".*()\n") or 0) + 2
    for _, suffix in ipairs(suffixes) do
        if last + #suffix + 2 > options.linewidth then
            text = text .. ",\n" .. (" "):rep(indent) .. suffix
            last = indent + #suffix
        else
            text = text .. ", " .. suffix
            last = last + #suffix + 2
        end
    end
    text = text .. ")"
    if t.reserved == PARAMETER then return "Parameter containing:\n" .. text end
    return text
end

tensor.metatable.__tostring = printing.text

return printing
