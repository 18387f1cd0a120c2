--- pg.help: what the op table says about an op.

local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local tensor = require "perigee.tensor"
local wrapper = require "perigee.wrapper"

local function promises(row)
    local list = {}
    local attrs = row.attrs
    if attrs.grad2 then
        list[#list + 1] = "has gradients, also of gradients"
    elseif attrs.grad then
        list[#list + 1] = "has a gradient"
    end
    if attrs.out then list[#list + 1] = "takes {out = tensor}" end
    if attrs.view then list[#list + 1] = "shares memory with its input" end
    if attrs.random then list[#list + 1] = "draws random numbers" end
    if attrs.no_cuda then list[#list + 1] = "not on CUDA: " .. attrs.no_cuda end
    return table.concat(list, "; ")
end

local function ways(row)
    local list = { "pg." .. row.name }
    if row.attrs.method then
        list[#list + 1] = "x:" .. (row.attrs.method == true and row.short or row.attrs.method)
    end
    if row.attrs.operator then
        list[#list + 1] = row.attrs.operator == "neg" and "-x" or "x " .. row.attrs.operator .. " y"
    end
    return table.concat(list, ", ")
end

local function text_of_row(row)
    local lines = { row.signature, "    " .. ways(row) }
    if row.doc ~= "" then
        for line in (row.doc .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = "    " .. line end
    end
    local what = promises(row)
    if what ~= "" then lines[#lines + 1] = "    (" .. what .. ")" end
    return table.concat(lines, "\n")
end

local function text_of_rows(rows)
    local parts = {}
    for k, row in ipairs(rows) do parts[k] = text_of_row(row) end
    return table.concat(parts, "\n\n")
end

local function find(name)
    name = name:gsub("^pg%.", ""):gsub("^F%.", "nn.functional."):gsub("^x?:", "")
    local rows = wrapper.by_name[name]
    if rows then return rows end
    local found, seen = {}, {}
    for full, set in pairs(wrapper.by_name) do
        if full:match("([^.]+)$") == name then
            for _, row in ipairs(set) do
                found[#found + 1] = row
                seen[row] = true
            end
        end
    end
    for _, row in ipairs(wrapper.by_method[name] or {}) do
        if not seen[row] then found[#found + 1] = row end
    end
    table.sort(found, function(a, b) return a.index < b.index end)
    return #found > 0 and found or nil
end

local function all_names()
    local list = {}
    for full in pairs(wrapper.by_name) do
        list[#list + 1] = full:match("([^.]+)$")
        list[#list + 1] = full
    end
    for name in pairs(wrapper.by_method) do list[#list + 1] = name end
    return list
end

-- The ops by section of the header, wrapped.
local function overview()
    local sections, order, seen = {}, {}, {}
    local rows = {}
    for _, set in pairs(wrapper.by_name) do
        for _, row in ipairs(set) do rows[#rows + 1] = row end
    end
    table.sort(rows, function(a, b) return a.index < b.index end)
    for _, row in ipairs(rows) do
        if not sections[row.section] then
            sections[row.section] = {}
            order[#order + 1] = row.section
        end
        if not seen[row.name] then
            seen[row.name] = true
            table.insert(sections[row.section], row.name)
        end
    end
    local lines = { 'pg.help "softmax" or pg.help(pg.softmax) explains an op. The ops:' }
    for _, section in ipairs(order) do
        lines[#lines + 1] = section
        local line = "   "
        for _, name in ipairs(sections[section]) do
            if #line + #name + 1 > 100 then
                lines[#lines + 1] = line
                line = "   "
            end
            line = line .. " " .. name
        end
        lines[#lines + 1] = line
    end
    return table.concat(lines, "\n")
end

--- The help's text.
---@param what any an op's name or function, a Tensor, a dtype; nil for an overview
---@return string
local function text(what)
    if what == nil then return overview() end
    if type(what) == "string" then
        local rows = find(what)
        if rows then return text_of_rows(rows) end
        if tensor.fields[what] then return ("x.%s: a field of tensors"):format(what) end
        if tensor.methods[what] then return ("x:%s(...): a method of tensors"):format(what) end
        return errors.fail("help: no op is called '%s'%s", what, errors.did_you_mean(what, all_names()))
    elseif type(what) == "function" then
        local rows = wrapper.rows_of[what]
        if rows then return text_of_rows(rows) end
        local info = debug.getinfo(what, "S")
        return ("a function of %s, line %d"):format(info.short_src, info.linedefined)
    elseif tensor.is_tensor(what) then
        return ("a Tensor of shape %s, %s, on %s"):format(tostring(what.shape), tostring(what.dtype), what.device)
    elseif dtype.is(what) then
        local name = tostring(what)
        return ("%s: %d bytes an element; %s{...} makes a tensor of it"):format(name, what.itemsize, name)
    end
    local metatable = debug.getmetatable(what)
    if type(metatable) == "table" and metatable.__names then
        local names = metatable.__names()
        table.sort(names)
        return table.concat(names, " ")
    end
    if type(metatable) == "table" and metatable.__tostring then return tostring(what) end
    return "a " .. type(what)
end

return setmetatable({ text = text }, {
    __call = function(_, ...)
        io.write(text((...)), "\n")
    end,
})
