-- Every op on wrong arguments: a Lua error at the caller's line that names the op; nothing else happens.

local pg = require "perigee"
local core = require "perigee.ffi"
local wrapper = require "perigee.wrapper"

-- A value that a parameter's type allows.
local function some(p)
    local kind = p.kind
    if kind == "tensor" or kind == "tensor_number" then return pg.tensor({ { 1, 2 }, { 3, 4 } }) end
    if kind == "tensors" then return { pg.tensor({ 1, 2 }) } end
    if kind == "ints" then return { 0 } end
    if kind == "bool" then return false end
    if kind == "dtype" then return pg.float32 end
    if kind == "word" then return p.words[1] end
    if kind == "device" then return "cpu" end
    if kind == "string" then return "x" end
    return 0
end

local function arguments(row)
    local positional, options = {}, nil
    for _, p in ipairs(row.params) do
        if not p.option then
            positional[#positional + 1] = some(p)
        elseif not p.has_default then
            options = options or {}
            options[p.name] = some(p)
        end
    end
    return positional, options
end

local function place_of(row, name)
    local k = 0
    for _, p in ipairs(row.params) do
        if not p.option then
            k = k + 1
            if p.name == name then return k end
        end
    end
end

local function call(row, positional, options, n)
    local all = { unpack(positional, 1, n) }
    if options then
        local last = n
        while last > 0 and all[last] == nil do last = last - 1 end
        n = last + 1
        all[n] = options
    end
    local f = wrapper.of_rows({ row })
    return pcall(function()
        local result = f(unpack(all, 1, n))
        return result
    end)
end

local function check(row, what, ok, message)
    assert.is_false(ok, row.signature .. ": no error for " .. what)
    message = tostring(message)
    local function has(text) return message:find(text, 1, true) ~= nil end
    local named = has(row.short .. ":") or (row.alias and has(row.target.short .. ":"))
    assert.is_true(named, row.signature .. ": the op is not named: " .. message)
    assert.is_true(has "errors_spec.lua:", row.signature .. ": not at the caller's line: " .. message)
end

describe("wrong arguments of", function()
    for _, row in ipairs(core.rows) do
        it(row.signature, function()
            for _, p in ipairs(row.params) do
                if p.kind == "tensor" or p.kind == "tensor_number" or p.kind == "tensors" then
                    local positional, options = arguments(row)
                    local n = #positional
                    local place = place_of(row, p.name)
                    local function try(what, value)
                        local copy, copied = { unpack(positional, 1, n) }, {}
                        for key, v in pairs(options or {}) do copied[key] = v end
                        if place then copy[place] = value else copied[p.name] = value end
                        check(row, p.name .. " = " .. what, call(row, copy, next(copied) and copied or nil, n))
                    end
                    try("a string", "x")
                    try("a function", function() end)
                    if place and not p.has_default then try("nil", nil) end
                    local freed = pg.tensor({ { 1, 2 }, { 3, 4 } })
                    freed:free()
                    if p.kind == "tensors" then
                        try("a list with a freed tensor", { freed })
                        try("a list with a number", { 1 })
                    else
                        try("a freed tensor", freed)
                    end
                end
            end
            -- Unknown options and surplus arguments.
            local positional, options = arguments(row)
            local with = { no_such_option = 1 }
            for key, v in pairs(options or {}) do with[key] = v end
            check(row, "an unknown option", call(row, positional, with, #positional))
            local last = row.params[#row.params]
            if not (last and last.rest) then
                positional[#positional + 1] = {}
                positional[#positional + 1] = 1
                check(row, "surplus arguments", call(row, positional, nil, #positional))
            end
        end)
    end
end)
