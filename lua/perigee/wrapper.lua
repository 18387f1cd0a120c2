--- Makes the Lua function of each op from its row, with `load`, when it is first used.
--
-- A wrapper checks its arguments, makes the handles of the results, fills the scratch below and calls the engine. Between
-- filling and calling nothing is allocated and nothing else is called, so one set of scratch serves every wrapper of a Lua
-- state. A debug hook may run between any two instructions, though: whoever runs ops in one does so inside `protect`.

local ffi = require "ffi"
local core = require "perigee.ffi"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local optable = require "perigee.optable"

local C = core.C
local istype = ffi.istype
local floor = math.floor
local T = ffi.typeof("pg_tensor")
local List = ffi.metatype("pg_tensor_list", { __gc = C.pg_tensor_list_release })
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

local HANDLE_MAGIC, LIST_MAGIC = C.PG_HANDLE_MAGIC, C.PG_LIST_MAGIC
local LIMIT = 2 ^ 63

local wrapper = {}

-- ---- scratch ----

local INTS, NUMBERS, TENSORS = 6, 8, 6      -- how many parameters of a kind one op may have
local INTS_ROOM, TENSORS_ROOM = 64, 512     -- longer lists get memory of their own

local scratch = ffi.new([[struct {
    int64_t ints[]] .. INTS .. "][" .. INTS_ROOM .. [[];
    pg_number numbers[]] .. NUMBERS .. [[];
    int64_t single_int[]] .. NUMBERS .. [[];
    double single_float[]] .. NUMBERS .. [[];
    const pg_tensor *tensors[]] .. TENSORS .. "][" .. TENSORS_ROOM .. [[];
    pg_number number_out[4];
    int64_t int_out[4];
    bool bool_out[4];
}]])

local function restore(saved, ok, ...)
    ffi.copy(scratch, saved, ffi.sizeof(scratch))
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...), which may run ops, in a debug hook that interrupted an op's wrapper.
function wrapper.protect(f, ...)
    local saved = ffi.new("char[?]", ffi.sizeof(scratch))
    ffi.copy(saved, scratch, ffi.sizeof(scratch))
    return restore(saved, pcall(f, ...))
end

-- ---- what an argument is, in messages ----

local function describe(value)
    local is = type(value)
    if is == "nil" then
        return "nil"
    elseif is == "string" then
        return #value <= 40 and ("the string '%s'"):format(value) or "a string"
    elseif is == "number" then
        return ("the number %.14g"):format(value)
    elseif is == "boolean" then
        return tostring(value)
    elseif istype(T, value) then
        return "a Tensor"
    elseif dtype.is(value) then
        return tostring(value)
    elseif is == "cdata" then
        return ("a cdata (%s)"):format(tostring(ffi.typeof(value)):match("^ctype<(.*)>$") or "?")
    end
    return "a " .. is
end
wrapper.describe = describe

local function bad(op, name, expected, value, hint)
    return errors.fail("%s: %s: expected %s, got %s%s", op, name, expected, describe(value), hint or "")
end

local function bad_tensor(op, name, value)
    local hint = (type(value) == "table" and not dtype.is(value)) and " (pg.tensor makes a Tensor from one)" or ""
    return bad(op, name, "a Tensor", value, hint)
end

local function want_int(op, name, value)
    if type(value) == "cdata" and (istype(int64, value) or istype(uint64, value)) then return value end
    if type(value) == "number" then
        return errors.fail("%s: %s: expected an integer, got %.14g", op, name, value)
    end
    return bad(op, name, "an integer", value)
end

local function want_float(op, name, value)
    if type(value) == "cdata" and (istype(int64, value) or istype(uint64, value)) then return tonumber(value) end
    return bad(op, name, "a number", value)
end

--- Fills a pg_number from what is not a plain Lua number, or raises.
local function want_number(slot, op, name, expected, value)
    if type(value) == "boolean" then
        slot.kind, slot.i, slot.d = 0, value and 1 or 0, value and 1 or 0
        return slot
    elseif type(value) == "cdata" and (istype(int64, value) or istype(uint64, value)) then
        slot.kind, slot.i, slot.d = 1, value, tonumber(value)
        return slot
    end
    if expected == "a Tensor or a number" and type(value) == "table" then return bad_tensor(op, name, value) end
    return bad(op, name, expected, value)
end

local function fill_number(slot, value)
    if floor(value) == value and value < LIMIT and value >= -LIMIT then
        slot.kind, slot.i, slot.d = 1, value, value
    else
        slot.kind, slot.i, slot.d = 2, 0, value
    end
    return slot
end
wrapper.fill_number = fill_number

--- A constant pg_number.
local function constant_number(value)
    local slot = ffi.new("pg_number")
    if type(value) == "number" then return fill_number(slot, value) end
    return want_number(slot, "", "", "a number", value)
end

local function bad_list_item(op, name, k, value)
    if type(value) == "number" then
        return errors.fail("%s: %s: expected integers, got %.14g at [%d]", op, name, value, k)
    end
    return errors.fail("%s: %s: expected integers, got %s at [%d]", op, name, describe(value), k)
end

local function bad_holes(op, name)
    return errors.fail("%s: %s: the list has a hole (nil) in it", op, name)
end

local function bad_keys(op, name)
    return errors.fail("%s: %s: expected a list of integers, got a table with other keys", op, name)
end

-- Beyond what the straight line below takes.
local function fill_long(buffer, list, op, name)
    local n = 0
    while list[n + 1] ~= nil do n = n + 1 end
    if n > INTS_ROOM then buffer = ffi.new("int64_t[?]", n) end
    for k = 1, n do
        local v = list[k]
        if type(v) ~= "number" or floor(v) ~= v or v >= LIMIT or v < -LIMIT then
            if not (istype(int64, v) or istype(uint64, v)) then bad_list_item(op, name, k, v) end
        end
        buffer[k - 1] = v
    end
    if #list ~= n then bad_holes(op, name) end
    return buffer, n
end

local function item(v, op, name, k)
    if type(v) == "number" and floor(v) == v and v < LIMIT and v >= -LIMIT then return v end
    if istype(int64, v) or istype(uint64, v) then return v end
    return bad_list_item(op, name, k, v)
end

--- Fills the buffer with a list's integers; returns the buffer that holds them (a fresh one for a long list) and how many.
local function fill_ints(buffer, list, op, name)
    local a = list[1]
    if a == nil then
        if next(list) ~= nil then
            if #list > 0 then bad_holes(op, name) end
            bad_keys(op, name)
        end
        return buffer, 0
    end
    buffer[0] = item(a, op, name, 1)
    local n = 1
    local b = list[2]
    if b ~= nil then
        buffer[1] = item(b, op, name, 2)
        n = 2
        local c = list[3]
        if c ~= nil then
            buffer[2] = item(c, op, name, 3)
            n = 3
            local d = list[4]
            if d ~= nil then
                buffer[3] = item(d, op, name, 4)
                n = 4
                local e = list[5]
                if e ~= nil then
                    buffer[4] = item(e, op, name, 5)
                    n = 5
                    if list[6] ~= nil then return fill_long(buffer, list, op, name) end
                end
            end
        end
    end
    if #list ~= n or list[n + 2] ~= nil or list[n + 3] ~= nil then bad_holes(op, name) end
    return buffer, n
end
wrapper.fill_ints = fill_ints

--- Fills the array of pointers with a list's tensors; the list keeps them alive.
local function fill_tensors(buffer, list, op, name)
    local n = 0
    while true do
        local v = list[n + 1]
        if not v then break end
        if not istype(T, v) then
            errors.fail("%s: %s: expected Tensors, got %s at [%d]", op, name, describe(v), n + 1)
        end
        if n == TENSORS_ROOM then
            local count = n
            while list[count + 1] do count = count + 1 end
            local more = ffi.new("const pg_tensor *[?]", count)
            for k = 1, count do
                local t = list[k]
                if not istype(T, t) then
                    errors.fail("%s: %s: expected Tensors, got %s at [%d]", op, name, describe(t), k)
                end
                more[k - 1] = t
            end
            buffer, n = more, count
            break
        end
        buffer[n] = v
        n = n + 1
    end
    if #list ~= n or list[n + 2] ~= nil then bad_holes(op, name) end
    return buffer, n
end
wrapper.fill_tensors = fill_tensors
wrapper.tensors_scratch = scratch.tensors

local function want_list(op, name, value)
    return bad(op, name, "a list of Tensors", value)
end

-- ---- options ----

--- Is this table an options table: not empty, string keys alone?
local function is_options(value)
    if getmetatable(value) ~= nil then return false end
    local key = next(value)
    return type(key) == "string"
end

local function sorted_keys(known)
    local keys = {}
    for key in pairs(known) do keys[#keys + 1] = key end
    table.sort(keys)
    return keys
end

--- Checks that the table's keys are the op's.
local function check_options(o, known, op)
    local key = next(o)
    while key ~= nil do
        if not known[key] then
            if type(key) ~= "string" then
                errors.fail("%s: a table of options has string keys alone, got the key [%s]", op, tostring(key))
            end
            local keys = sorted_keys(known)
            errors.fail("%s: unknown option '%s' (known: %s)%s", op, key, table.concat(keys, ", "),
                errors.did_you_mean(key, keys))
        end
        key = next(o, key)
    end
end
wrapper.is_options = is_options
wrapper.check_options = check_options

local function want_options(value, op, limit)
    if type(value) ~= "table" or not is_options(value) then
        errors.fail("%s: takes %d argument%s and a table of options, got %s beyond them", op, limit, limit == 1 and "" or "s",
            describe(value))
    end
    return value
end

local function surplus(op, limit)
    return errors.fail("%s: too many arguments: takes %d and a table of options", op, limit)
end

local function twice(op, name)
    return errors.fail("%s: %s is given twice, by position and as an option", op, name)
end

local function bad_word(op, name, words, value)
    if type(value) ~= "string" then return bad(op, name, "one of '" .. table.concat(words, "', '") .. "'", value) end
    return errors.fail("%s: %s: expected one of '%s', got '%s'%s", op, name, table.concat(words, "', '"), value,
        errors.did_you_mean(value, words))
end

local function hole(op, name)
    return errors.fail("%s: %s: nil among the integers", op, name)
end

local function take_list(list)
    local result = {}
    for k = 0, list.n - 1 do
        local handle = T(HANDLE_MAGIC)
        memory.check(C.pg_tensor_list_take(handle, list, k))
        result[k + 1] = handle
    end
    C.pg_tensor_list_release(list)
    return result
end
wrapper.take_list = take_list

local EXACT = 2 ^ 53

--- A pg_number as a Lua value: int64 cdata beyond 2^53.
local function from_number(slot)
    if slot.kind == 2 then return slot.d end
    if slot.kind == 0 then return slot.i ~= 0 end
    local value = tonumber(slot.i)
    if value >= EXACT or value <= -EXACT then return int64(slot.i) end
    return value
end
wrapper.from_number = from_number

local function from_int(value)
    local number = tonumber(value)
    if number >= EXACT or number <= -EXACT then return int64(value) end
    return number
end

local environment = {
    C = C, T = T, List = List, istype = istype, type = type, floor = floor, HANDLE_MAGIC = HANDLE_MAGIC,
    LIST_MAGIC = LIST_MAGIC, LIMIT = LIMIT, bad = bad, bad_tensor = bad_tensor, want_int = want_int, want_float = want_float,
    want_number = want_number, fill_ints = fill_ints, fill_tensors = fill_tensors, want_list = want_list,
    is_options = is_options, check_options = check_options, want_options = want_options, surplus = surplus, twice = twice,
    bad_word = bad_word, hole = hole, take_list = take_list, from_number = from_number, from_int = from_int,
    settle = memory.settle, settle_again = memory.settle_again, DTYPES = dtype.number, int64 = int64, uint64 = uint64,
    describe = describe, next = next,
}

-- ---- the text of a wrapper ----

local REST_MAX = C.PG_DIMS_MAX

--- One row's function as text and the constants it needs.
---@param row Row
---@param op string the name in messages
local function generate(row, op)
    local lines, constants, used = {}, {}, {}
    local function line(format, ...)
        lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
    end
    local function use(name)
        used[name] = true
        return name
    end
    local function constant(value)
        local name = "K" .. (#constants + 1)
        constants[#constants + 1] = value
        return name
    end
    local Q = ("%q"):format(op)

    local positional, rest = {}, nil
    for _, p in ipairs(row.params) do
        if not p.option then
            if p.rest then rest = p end
            positional[#positional + 1] = p
        end
    end
    if rest and positional[#positional] ~= rest then error(row.name .. ": int... must be the last positional parameter") end
    local fixed = rest and #positional - 1 or #positional

    local formal = {}
    for k = 1, fixed do formal[k] = "p_" .. positional[k].name end
    local more = {}
    if rest then
        for k = 1, REST_MAX + 2 do
            more[k] = "a" .. k
            formal[#formal + 1] = more[k]
        end
    else
        formal[#formal + 1] = "opts"
        formal[#formal + 1] = "extra"
    end
    line("return function(%s)", table.concat(formal, ", "))

    local options_only, known = {}, {}
    for _, p in ipairs(row.params) do
        known[p.name] = true
        if p.option then options_only[#options_only + 1] = "p_" .. p.name end
    end
    if row.attrs.out then known.out = true end
    if #options_only > 0 then line("local %s", table.concat(options_only, ", ")) end
    if row.attrs.out then line("local o_out") end
    line("local o")
    local R -- scratch for the rest list
    local next_ints = 0
    local function ints_slot()
        next_ints = next_ints + 1
        if next_ints > INTS then error(row.name .. ": too many lists of integers") end
        return constant(scratch.ints[next_ints - 1])
    end
    if rest then
        -- Integers until something else: a list (first place only) or the options.
        R = ints_slot()
        local name = ("%q"):format(rest.name)
        line("local p_%s, rest_n = nil, 0", rest.name)
        line("if %s(a1) == 'table' and not %s[a1] and not %s(a1) then", use "type", use "DTYPES", use "is_options")
        line("p_%s = a1", rest.name)
        line("if a2 then o = %s(a2, %s, %d) end", use "want_options", Q, fixed + 1)
        line("if %s(a3) ~= 'nil' then %s(%s, %d) end", use "type", use "surplus", Q, fixed + 1)
        line("else")
        for k = 1, REST_MAX + 2 do
            local following = k < REST_MAX + 2 and more[k + 1] or nil
            local a = more[k]
            if k > REST_MAX then
                line("if %s then if %s(%s) == 'table' then o = %s(%s, %s, %d) else %s(%s, %d) end end goto done", a,
                    use "type", a, use "want_options", a, Q, fixed + REST_MAX, use "surplus", Q, fixed + REST_MAX)
                break
            end
            line("if %s(%s) == 'number' then if %s(%s) ~= %s or %s >= %s or %s < -%s then %s(%s, %s, %s) end", use "type", a,
                use "floor", a, a, a, use "LIMIT", a, use "LIMIT", use "want_int", Q, name, a)
            line("elseif %s(%s) == 'nil' then", use "type", a)
            if following then line("if %s(%s) ~= 'nil' then %s(%s, %s) end", use "type", following, use "hole", Q, name) end
            line("goto done")
            line("elseif %s(%s) == 'table' and not %s[%s] then o = %s(%s, %s, %d)", use "type", a, use "DTYPES", a,
                use "want_options", a, Q, fixed + k - 1)
            if following then
                line("if %s(%s) ~= 'nil' then %s(%s, %d) end", use "type", following, use "surplus", Q, fixed + k - 1)
            end
            line("goto done")
            line("else %s(%s, %s, %s) end", use "want_int", Q, name, a)
            line("%s[%d] = %s rest_n = %d", R, k - 1, a, k)
        end
        line("::done::")
        line("end")
    else
        line("if %s(extra) ~= 'nil' then %s(%s, %d) end", use "type", use "surplus", Q, fixed)
        line("if %s(opts) ~= 'nil' then o = %s(opts, %s, %d)", use "type", use "want_options", Q, fixed)
    end
    if fixed > 0 then
        local chain = rest and ("if rest_n > 0 or p_%s then"):format(rest.name) or nil
        if chain then line(chain) end
        local started = true
        for k = fixed, 1, -1 do
            local p = formal[k]
            line("%s %s then if %s(%s) == 'table' and not %s[%s] and %s(%s) then o, %s = %s, nil end",
                started and "elseif" or "if", p, use "type", p, use "DTYPES", p, use "is_options", p, p, p)
        end
        line("end")
    elseif not rest then
        line("end")
    end
    if rest and fixed > 0 then
        lines[#lines] = "end" -- closes the chain
    end

    line("if o then")
    line("%s(o, %s, %s)", use "check_options", constant(known), Q)
    for _, p in ipairs(row.params) do
        local var, key = "p_" .. p.name, ("%q"):format(p.name)
        if p.option then
            line("%s = o[%s]", var, key)
        else
            line("local v = o[%s]", key)
            if p.rest then
                line("if %s(v) ~= 'nil' then if rest_n > 0 or %s then %s(%s, %s) end %s = v end", use "type", var, use "twice", Q,
                    key, var)
            else
                line("if %s(v) ~= 'nil' then if %s(%s) ~= 'nil' then %s(%s, %s) end %s = v end", use "type", use "type", var,
                    use "twice", Q, key, var)
            end
        end
    end
    if row.attrs.out then line("o_out = o.out") end
    line("end")

    -- The results' handles: all allocation happens here.
    local call, results = {}, {}
    for k, result in ipairs(row.results) do
        local var = "r_" .. result.name
        if result.kind == "tensor" then
            if row.attrs.out then
                line("local %s", var)
                if #row.results == 1 then
                    line("if o_out then %s = o_out", var)
                else
                    line("if o_out then if %s(o_out) ~= 'table' then %s(%s, 'out', 'a list of %d Tensors', o_out) end", use "type",
                        use "bad", Q, #row.results)
                    line("%s = o_out[%d]", var, k)
                end
                line("if not %s(%s, %s) then %s(%s, 'out', %s) end", use "istype", use "T", var, use "bad_tensor", Q, var)
                line("else %s = %s(%s) end", var, use "T", use "HANDLE_MAGIC")
            else
                line("local %s = %s(%s)", var, use "T", use "HANDLE_MAGIC")
            end
            call[#call + 1] = var
            results[#results + 1] = var
        elseif result.kind == "tensors" then
            line("local %s = %s(%s)", var, use "List", use "LIST_MAGIC")
            call[#call + 1] = var
            results[#results + 1] = ("%s(%s)"):format(use "take_list", var)
        elseif result.kind == "number" then
            local slot = constant(scratch.number_out[k - 1])
            call[#call + 1] = slot
            results[#results + 1] = ("%s(%s)"):format(use "from_number", slot)
        elseif result.kind == "int" then
            local slot = constant(scratch.int_out + (k - 1))
            call[#call + 1] = slot
            results[#results + 1] = ("%s(%s[0])"):format(use "from_int", slot)
        else
            local slot = constant(scratch.bool_out + (k - 1))
            call[#call + 1] = slot
            results[#results + 1] = slot .. "[0]"
        end
    end

    local next_number, next_int, next_float, next_tensors = 0, 0, 0, 0
    local late = {} -- fills that must come after every conversion that may allocate
    for _, p in ipairs(row.params) do
        local x, name, kind = "p_" .. p.name, ("%q"):format(p.name), p.kind
        local default = p.default
        local may_be_absent = p.has_default
        if kind == "tensor" then
            if p.optional then
                line("if %s then if not %s(%s, %s) then %s(%s, %s, %s) end elseif %s == false then %s(%s, %s, %s) end", x,
                    use "istype", use "T", x, use "bad_tensor", Q, name, x, x, use "bad_tensor", Q, name, x)
            else
                line("if not %s(%s, %s) then %s(%s, %s, %s) end", use "istype", use "T", x, use "bad_tensor", Q, name, x)
            end
            call[#call + 1] = x
        elseif kind == "tensors" then
            next_tensors = next_tensors + 1
            local slot = constant(scratch.tensors[next_tensors - 1])
            line("local t_%s, n_%s = nil, 0", p.name, p.name)
            local test = ("if %s(%s) == 'table' then t_%s, n_%s = %s(%s, %s, %s, %s)"):format(use "type", x, p.name, p.name,
                use "fill_tensors", slot, x, Q, name)
            if p.optional then
                line("%s elseif %s(%s) ~= 'nil' then %s(%s, %s, %s) end", test, use "type", x, use "want_list", Q, name, x)
            else
                line("%s else %s(%s, %s, %s) end", test, use "want_list", Q, name, x)
            end
            call[#call + 1] = "t_" .. p.name
            call[#call + 1] = "n_" .. p.name
        elseif kind == "number" or kind == "tensor_number" or kind == "number_word" then
            next_number = next_number + 1
            if next_number > NUMBERS then error(row.name .. ": too many numbers") end
            local slot = constant(scratch.numbers[next_number - 1])
            local expected = kind == "tensor_number" and "'a Tensor or a number'" or "'a number'"
            line("local n_%s", p.name)
            local head = "if"
            if kind == "tensor_number" then
                line("local t_%s", p.name)
                line("if %s(%s, %s) then t_%s = %s", use "istype", use "T", x, p.name, x)
                head = "elseif"
            elseif kind == "number_word" then
                local words = {}
                for k, word in ipairs(p.words) do words[word] = k - 1 end
                line("local w_%s = -1", p.name)
                line("if %s(%s) == 'string' then w_%s = %s[%s] or %s(%s, %s, %s, %s)", use "type", x, p.name, constant(words), x,
                    use "bad_word", Q, name, constant(p.words), x)
                head = "elseif"
            end
            line("%s %s(%s) == 'number' then", head, use "type", x)
            line("if %s(%s) == %s and %s < %s and %s >= -%s then %s.kind = 1 %s.i = %s %s.d = %s", use "floor", x, x, x,
                use "LIMIT", x, use "LIMIT", slot, slot, x, slot, x)
            line("else %s.kind = 2 %s.i = 0 %s.d = %s end n_%s = %s", slot, slot, slot, x, p.name, slot)
            if may_be_absent then
                line("elseif %s(%s) == 'nil' then", use "type", x)
                if type(default) == "number" then
                    line("n_%s = %s", p.name, constant(constant_number(default)))
                elseif type(default) == "string" then
                    for k, word in ipairs(p.words) do
                        if word == default then line("w_%s = %d", p.name, k - 1) end
                    end
                end
            end
            line("else n_%s = %s(%s, %s, %s, %s, %s) end", p.name, use "want_number", slot, Q, name, expected, x)
            if kind == "tensor_number" then call[#call + 1] = "t_" .. p.name end
            call[#call + 1] = "n_" .. p.name
            if kind == "number_word" then call[#call + 1] = "w_" .. p.name end
        elseif kind == "int" then
            local test = ("if %s(%s) ~= 'number' or %s(%s) ~= %s or %s >= %s or %s < -%s then %s = %s(%s, %s, %s) end"):format(
                use "type", x, use "floor", x, x, x, use "LIMIT", x, use "LIMIT", x, use "want_int", Q, name, x)
            if p.optional then
                next_int = next_int + 1
                local slot = constant(scratch.single_int + (next_int - 1))
                line("local i_%s", p.name)
                if default ~= nil then line("if %s(%s) == 'nil' then %s = %s end", use "type", x, x, tostring(default)) end
                line("if %s(%s) ~= 'nil' then %s %s[0] = %s i_%s = %s end", use "type", x, test, slot, x, p.name, slot)
                call[#call + 1] = "i_" .. p.name
            else
                if may_be_absent then line("if %s(%s) == 'nil' then %s = %s end", use "type", x, x, ("%.17g"):format(default)) end
                line(test)
                call[#call + 1] = x
            end
        elseif kind == "ints" then
            local slot = p.rest and R or ints_slot()
            local fallback, count = "nil", 0
            if type(default) == "number" then
                fallback, count = constant(ffi.new("int64_t[1]", default)), 1
            elseif type(default) == "table" then
                fallback, count = constant(ffi.new("int64_t[?]", #default + 1, default)), #default
            elseif type(default) == "string" then
                for k, word in ipairs(p.words) do
                    if word == default then count = -k end
                end
            end
            line("local v_%s, n_%s", p.name, p.name)
            local head = "if"
            if p.rest then
                line("if rest_n > 0 then v_%s, n_%s = %s, rest_n", p.name, p.name, slot)
                head = "elseif"
            end
            line("%s %s(%s) == 'table' then v_%s, n_%s = %s(%s, %s, %s, %s)", head, use "type", x, p.name, p.name,
                use "fill_ints", slot, x, Q, name)
            line("elseif %s(%s) == 'number' then", use "type", x)
            line("if %s(%s) ~= %s or %s >= %s or %s < -%s then %s(%s, %s, %s) end", use "floor", x, x, x, use "LIMIT", x,
                use "LIMIT", use "want_int", Q, name, x)
            line("%s[0] = %s v_%s = %s n_%s = 1", slot, x, p.name, slot, p.name)
            if may_be_absent then
                line("elseif %s(%s) == 'nil' then v_%s, n_%s = %s, %d", use "type", x, p.name, p.name, fallback, count)
            end
            if p.words then
                local words = {}
                for k, word in ipairs(p.words) do words[word] = -k end
                line("elseif %s(%s) == 'string' then n_%s = %s[%s] or %s(%s, %s, %s, %s)", use "type", x, p.name, constant(words),
                    x, use "bad_word", Q, name, constant(p.words), x)
            end
            line("elseif %s(%s, %s) or %s(%s, %s) then %s[0] = %s v_%s = %s n_%s = 1", use "istype", use "int64", x,
                use "istype", use "uint64", x, slot, x, p.name, slot, p.name)
            line("else %s(%s, %s, 'integers', %s) end", use "bad", Q, name, x)
            call[#call + 1] = "v_" .. p.name
            call[#call + 1] = "n_" .. p.name
        elseif kind == "float" then
            if p.optional then
                next_float = next_float + 1
                local slot = constant(scratch.single_float + (next_float - 1))
                line("local f_%s", p.name)
                if default ~= nil then
                    line("if %s(%s) == 'nil' then %s = %s end", use "type", x, x, constant(default))
                end
                line("if %s(%s) ~= 'nil' then if %s(%s) ~= 'number' then %s = %s(%s, %s, %s) end %s[0] = %s f_%s = %s end",
                    use "type", x, use "type", x, x, use "want_float", Q, name, x, slot, x, p.name, slot)
                call[#call + 1] = "f_" .. p.name
            else
                if may_be_absent then line("if %s(%s) == 'nil' then %s = %s end", use "type", x, x, constant(default)) end
                line("if %s(%s) ~= 'number' then %s = %s(%s, %s, %s) end", use "type", x, x, use "want_float", Q, name, x)
                call[#call + 1] = x
            end
        elseif kind == "bool" then
            if p.optional then
                local absent = default == nil and "-1" or default and "1" or "0"
                line("local b_%s = %s", p.name, absent)
                line("if %s == true then b_%s = 1 elseif %s == false then b_%s = 0 elseif %s(%s) ~= 'nil' then %s(%s, %s, 'a boolean', %s) end",
                    x, p.name, x, p.name, use "type", x, use "bad", Q, name, x)
                call[#call + 1] = "b_" .. p.name
            else
                if may_be_absent then
                    line("if %s(%s) == 'nil' then %s = %s elseif", use "type", x, x, tostring(default))
                else
                    line("if")
                end
                line("%s(%s) ~= 'boolean' then %s(%s, %s, 'a boolean', %s) end", use "type", x, use "bad", Q, name, x)
                call[#call + 1] = x
            end
        elseif kind == "dtype" then
            line("local d_%s", p.name)
            local head = "if"
            if may_be_absent then
                line("if %s(%s) == 'nil' then d_%s = %d", use "type", x, p.name,
                    default and dtype.by_name[default].number or -1)
                head = "elseif"
            end
            line("%s %s(%s) == 'table' then d_%s = %s[%s] or %s(%s, %s, 'a dtype such as pg.float32', %s)", head, use "type", x,
                p.name, use "DTYPES", x, use "bad", Q, name, x)
            line("else %s(%s, %s, 'a dtype such as pg.float32', %s) end", use "bad", Q, name, x)
            call[#call + 1] = "d_" .. p.name
        elseif kind == "word" then
            local words = {}
            for k, word in ipairs(p.words) do words[word] = k - 1 end
            line("local w_%s", p.name)
            local head = "if"
            if may_be_absent then
                line("if %s(%s) == 'nil' then w_%s = %d", use "type", x, p.name, default and words[default] or -1)
                head = "elseif"
            end
            line("%s %s(%s) == 'string' then w_%s = %s[%s] or %s(%s, %s, %s, %s)", head, use "type", x, p.name, constant(words), x,
                use "bad_word", Q, name, constant(p.words), x)
            line("else %s(%s, %s, %s, %s) end", use "bad_word", Q, name, constant(p.words), x)
            call[#call + 1] = "w_" .. p.name
        else -- device, string
            local expected = kind == "device" and "'a device such as \"cpu\"'" or "'a string'"
            if may_be_absent then
                if default ~= nil then line("if %s(%s) == 'nil' then %s = %q end", use "type", x, x, default) end
                line("if %s(%s) ~= 'nil' and %s(%s) ~= 'string' then %s(%s, %s, %s, %s) end", use "type", x, use "type", x,
                    use "bad", Q, name, expected, x)
            else
                line("if %s(%s) ~= 'string' then %s(%s, %s, %s, %s) end", use "type", x, use "bad", Q, name, expected, x)
            end
            call[#call + 1] = x
        end
    end
    for _, text in ipairs(late) do line(text) end

    local invocation = ("%s.%s(%s)"):format(use "C", row.symbol, table.concat(call, ", "))
    line("local s = %s", invocation)
    line("if s ~= 0 then if %s(s) then s = %s if s ~= 0 then %s(s) end end end", use "settle", invocation, use "settle_again")
    if row.returns_self then
        line("return p_%s", row.params[1].name)
    else
        line("return %s", table.concat(results, ", "))
    end
    line("end")

    local head, names = {}, {}
    for name in pairs(used) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do head[#head + 1] = ("local %s = E.%s"):format(name, name) end
    for k = 1, #constants do head[#head + 1] = ("local K%d = K[%d]"):format(k, k) end
    return "local E, K = ...\n" .. table.concat(head, "\n") .. "\n" .. table.concat(lines, "\n"), constants
end

local function compile(text, name, ...)
    local chunk, message = loadstring(text, "=perigee:" .. name)
    if not chunk then error(("perigee: the wrapper of %s does not compile: %s\n%s"):format(name, message, text), 0) end
    return chunk(...)
end

--- A condition on a variable: does its value's class fit the parameter?
local function class_test(set, var)
    local tests = {}
    if set.tensor then tests[#tests + 1] = ("istype(T, %s)"):format(var) end
    if set.number then
        tests[#tests + 1] = ("type(%s) == 'number' or istype(int64, %s)"):format(var, var)
    end
    if set.boolean then tests[#tests + 1] = ("type(%s) == 'boolean'"):format(var) end
    if set.string then tests[#tests + 1] = ("type(%s) == 'string'"):format(var) end
    if set.dtype then tests[#tests + 1] = ("(type(%s) == 'table' and DTYPES[%s] ~= nil)"):format(var, var) end
    if set.sequence then tests[#tests + 1] = ("(type(%s) == 'table' and DTYPES[%s] == nil)"):format(var, var) end
    return tests
end

local function same_set(a, b)
    for k in pairs(a) do if not b[k] then return false end end
    for k in pairs(b) do if not a[k] then return false end end
    return true
end

--- Which rows of a set accept which class at a place.
local function place(row, k)
    local list = optable.positional(row)
    local p = list[k]
    if not p and list[#list] and list[#list].rest then
        return list[#list], true
    end
    return p, false
end

local function no_form(op, signatures, ...)
    local got = {}
    for k = 1, select("#", ...) do got[k] = (describe((select(k, ...)))) end
    while got[#got] == "nil" do got[#got] = nil end
    return errors.fail("%s: no form takes (%s); its forms are\n  %s", op, table.concat(got, ", "), signatures)
end

--- A function that picks the row by what its arguments are.
local function dispatcher(set, op, functions)
    local width = 0
    for _, row in ipairs(set) do
        local list = optable.positional(row)
        local n = #list
        if n > 0 and list[n].rest then n = n + REST_MAX end
        if n > width then width = n end
    end
    width = width + 2
    local vars = {}
    for k = 1, width do vars[k] = "a" .. k end
    local all = table.concat(vars, ", ")
    local lines = { "local E, F, KNOWN, SIGNATURES, no_form = ..." }
    for _, name in ipairs { "T", "istype", "type", "DTYPES", "is_options", "int64", "next" } do
        lines[#lines + 1] = ("local %s = E.%s"):format(name, name)
    end
    for k = 1, #set do lines[#lines + 1] = ("local F%d, KNOWN%d = F[%d], KNOWN[%d]"):format(k, k, k, k) end
    lines[#lines + 1] = [[
local function knows(o, known)
    local key = next(o)
    while key ~= nil do
        if not known[key] then return false end
        key = next(o, key)
    end
    return true
end]]
    lines[#lines + 1] = ("return function(%s)"):format(all)
    lines[#lines + 1] = "local o, n = nil, 0"
    for k = width, 1, -1 do
        lines[#lines + 1] = ("%s type(a%d) ~= 'nil' then n = %d if type(a%d) == 'table' and not DTYPES[a%d] and is_options(a%d) then o = a%d n = %d end")
            :format(k == width and "if" or "elseif", k, k, k, k, k, k, k - 1)
    end
    lines[#lines + 1] = "end"
    for index, row in ipairs(set) do
        local conditions = {}
        local list = optable.positional(row)
        local count = #list
        local rest = count > 0 and list[count].rest
        if not rest then conditions[1] = ("n <= %d"):format(count) end
        for k = 1, count do
            local p = list[k]
            -- Only places at which the rows differ decide; the others are the row's own to check.
            local differs, mine = false, optable.classes(p)
            for j, other in ipairs(set) do
                if j ~= index then
                    local q = place(other, k)
                    if not q then
                        differs = true
                    else
                        mine = optable.classes_beside(p, q).number == nil and optable.classes_beside(p, q) or mine
                        if q.name ~= p.name or not same_set(optable.classes_beside(p, q), optable.classes_beside(q, p))
                            or q.has_default ~= p.has_default then
                            differs = true
                        end
                    end
                end
            end
            if differs then
                local by_position = class_test(mine, "a" .. k)
                if mine.absent then by_position[#by_position + 1] = ("type(a%d) == 'nil'"):format(k) end
                local absent
                if p.has_default then
                    absent = "true"
                else
                    absent = ("(o and type(o[%q]) ~= 'nil')"):format(p.name)
                end
                local text = ("((n >= %d and (%s)) or (n < %d and %s))"):format(k, table.concat(by_position, " or "), k, absent)
                conditions[#conditions + 1] = text
                -- Given as an option it must fit too.
                conditions[#conditions + 1] = ("(not o or type(o[%q]) == 'nil' or %s)"):format(p.name,
                    table.concat(class_test(mine, ("o[%q]"):format(p.name)), " or "))
            end
        end
        conditions[#conditions + 1] = ("(not o or knows(o, KNOWN%d))"):format(index)
        lines[#lines + 1] = ("if %s then return F%d(%s) end"):format(table.concat(conditions, " and "), index, all)
    end
    lines[#lines + 1] = ("return no_form(%q, SIGNATURES, %s)"):format(op, all)
    lines[#lines + 1] = "end"
    local known, signatures = {}, {}
    for k, row in ipairs(set) do
        known[k] = {}
        for _, p in ipairs(row.params) do known[k][p.name] = true end
        if row.attrs.out then known[k].out = true end
        signatures[k] = row.signature
    end
    return compile(table.concat(lines, "\n"), op, environment, functions, known, table.concat(signatures, "\n  "), no_form)
end

-- ---- the names ----

local by_name, by_method, internal = {}, {}, {}
local spaces = {}      -- namespace -> list of short names
for _, row in ipairs(core.rows) do
    local where = row.attrs.internal and internal or by_name
    where[row.name] = where[row.name] or {}
    table.insert(where[row.name], row)
    if not row.attrs.internal and #where[row.name] == 1 then
        spaces[row.namespace] = spaces[row.namespace] or {}
        table.insert(spaces[row.namespace], row.short)
    end
    if row.attrs.method and not row.attrs.internal then
        local name = row.attrs.method == true and row.short or row.attrs.method
        by_method[name] = by_method[name] or {}
        table.insert(by_method[name], row)
    end
end
wrapper.by_name, wrapper.by_method, wrapper.spaces, wrapper.internal = by_name, by_method, spaces, internal

local made = {}         -- symbols of the rows -> function
wrapper.rows_of = setmetatable({}, { __mode = "k" })  -- function -> rows

local function make(set)
    local key = {}
    for k, row in ipairs(set) do key[k] = row.symbol .. "/" .. row.name end
    key = table.concat(key, " ")
    if made[key] then return made[key] end
    local functions = {}
    for k, row in ipairs(set) do
        local text, constants = generate(row, row.short)
        functions[k] = compile(text, row.short, environment, constants)
    end
    local f = #set == 1 and functions[1] or dispatcher(set, set[1].short, functions)
    made[key] = f
    wrapper.rows_of[f] = set
    return f
end

--- The text of the wrapper of a row, for people and specs.
function wrapper.text(row)
    return (generate(row, row.short))
end

--- The function of an op by its full Lua name; nil where there is none.
---@param name string "softmax", "nn.functional.layer_norm"
function wrapper.get(name)
    local set = by_name[name]
    return set and make(set)
end

--- The function of an internal op, or of any other.
function wrapper.internal_op(name)
    local set = internal[name] or by_name[name]
    return set and make(set)
end

--- A method's function; nil where there is none.
function wrapper.method(name)
    local set = by_method[name]
    return set and make(set)
end

--- Makes the functions of rows that are not the header's (specs of the grammar).
function wrapper.of_rows(set)
    return make(set)
end

local namespaces = {}

--- A table whose fields are the ops of a namespace, made at first use.
---@param space string "nn.functional"
---@param label string? as messages call it
function wrapper.namespace(space, label)
    if namespaces[space] then return namespaces[space] end
    local function names()
        local list = {}
        for name in pairs(namespaces[space]) do list[#list + 1] = name end
        for _, name in ipairs(spaces[space] or {}) do list[#list + 1] = name end
        return list
    end
    local t = setmetatable({}, {
        __index = function(self, key)
            if type(key) ~= "string" then return nil end
            local f = wrapper.get(space .. "." .. key)
            if f then
                rawset(self, key, f)
                return f
            end
            if key:sub(1, 1) == "_" then return nil end
            return errors.fail("%s has no '%s'%s", label or "pg." .. space, key, errors.did_you_mean(key, names()))
        end,
        __names = names,
    })
    namespaces[space] = t
    return t
end

return wrapper
