--- Makes the Lua function of each op from its row, with `load`, when it is first used.
--
-- A wrapper checks its arguments, makes the handles of the results, fills the scratch below and calls the engine.
-- Between filling and calling nothing is allocated and nothing else is called, so one set of scratch serves every
-- wrapper of a Lua state. A debug hook may run between any two instructions, though: whoever runs ops in one does
-- so inside `protect`.

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

local scratch = core.shared_buffer([[struct {
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
    core.restore_shared(saved)
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...), which may run ops, in a debug hook that interrupted Perigee's own Lua code anywhere. What f makes
--- belongs to no scope of the code that was interrupted.
function wrapper.protect(f, ...)
    return restore(core.save_shared(), pcall(memory.scope.outside, f, ...))
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

local function is_int64(value)
    return istype(int64, value) or istype(uint64, value)
end

local function want_int(op, name, value)
    if is_int64(value) then return value end
    if type(value) == "number" then
        return errors.fail("%s: %s: expected an integer, got %.14g", op, name, value)
    end
    return bad(op, name, "an integer", value)
end

local function want_float(op, name, value)
    if is_int64(value) then return tonumber(value) end
    return bad(op, name, "a number", value)
end

--- Fills a pg_number from what is not a plain Lua number, or raises.
local function want_number(slot, op, name, expected, value)
    if type(value) == "boolean" then
        slot.kind, slot.i, slot.d = 0, value and 1 or 0, value and 1 or 0
        return slot
    elseif is_int64(value) then
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
            if not is_int64(v) then bad_list_item(op, name, k, v) end
        end
        buffer[k - 1] = v
    end
    if #list ~= n then bad_holes(op, name) end
    return buffer, n
end

local function item(v, op, name, k)
    if type(v) == "number" and floor(v) == v and v < LIMIT and v >= -LIMIT then return v end
    if is_int64(v) then return v end
    return bad_list_item(op, name, k, v)
end

--- Fills the buffer with a list's integers; returns the buffer that holds them (a fresh one for a long list) and
--- how many.
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

local function unknown_option(key, known, op)
    if type(key) ~= "string" then
        errors.fail("%s: a table of options has string keys alone, got the key [%s]", op, tostring(key))
    end
    local keys = sorted_keys(known)
    return errors.fail("%s: unknown option '%s' (known: %s)%s", op, key, table.concat(keys, ", "),
        errors.did_you_mean(key, keys))
end

--- The first key of the table, beginning behind `key`, that is not among the known; nil where all are.
local function first_unknown(o, known, key)
    -- A straight line first: a loop in the middle of an op's call keeps the caller's loop from compiling.
    key = next(o, key)
    if key == nil then return nil end
    if not known[key] then return key end
    key = next(o, key)
    if key == nil then return nil end
    if not known[key] then return key end
    key = next(o, key)
    if key == nil then return nil end
    if not known[key] then return key end
    for other in next, o, key do
        if not known[other] then return other end
    end
    return nil
end

--- Checks that the table's keys are the op's.
local function check_options(o, known, op)
    local key = first_unknown(o, known)
    if key ~= nil then unknown_option(key, known, op) end
end
wrapper.is_options = is_options
wrapper.check_options = check_options

local function want_options(value, op, limit)
    if type(value) ~= "table" or not is_options(value) then
        errors.fail("%s: takes %d argument%s and a table of options, got %s beyond them", op, limit,
            limit == 1 and "" or "s", describe(value))
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

-- What the generated functions may name.
local environment = {
    C = C, T = T, List = List, istype = istype, type = type, floor = floor, int64 = int64, uint64 = uint64,
    HANDLE_MAGIC = HANDLE_MAGIC, LIST_MAGIC = LIST_MAGIC, LIMIT = LIMIT, DTYPES = dtype.number,
    bad = bad, bad_tensor = bad_tensor, bad_word = bad_word, hole = hole, twice = twice, surplus = surplus,
    want_int = want_int, want_float = want_float, want_number = want_number, want_list = want_list,
    want_options = want_options, is_options = is_options, check_options = check_options, first_unknown = first_unknown,
    is_int64 = is_int64,
    fill_ints = fill_ints, fill_tensors = fill_tensors,
    take_list = take_list, from_number = from_number, from_int = from_int,
    settle = memory.settle, settle_again = memory.settle_again,
}

-- ---- the text of a wrapper ----

local REST_MAX = C.PG_DIMS_MAX

-- template -> { text, kind, name, text, kind, name, ..., text }; kind is "$" or "{".
local templates = {}

local function split_template(template)
    local parts, at = {}, 1
    while true do
        local from, to, kind, name = template:find("([%${])([%a_][%w_]*)}?", at)
        if not from then break end
        if kind == "$" then to = from + #name end
        parts[#parts + 1] = template:sub(at, from - 1)
        parts[#parts + 1] = kind
        parts[#parts + 1] = name
        at = to + 1
    end
    parts[#parts + 1] = template:sub(at)
    templates[template] = parts
    return parts
end

--- Writes Lua text. In a template $name stands for a local of that name taken from `environment`, {name} for a
--- value.
local function new_writer(op)
    local writer = {
        lines = {}, constants = {}, used = {}, op = ("%q"):format(op),
        ints = 0, numbers = 0, singles = 0, floats = 0, tensors = 0,
    }
    local lines, used, quoted = writer.lines, writer.used, writer.op

    --- Appends a line.
    function writer.emit(template, values)
        local parts = templates[template] or split_template(template)
        local text = parts[1]
        for k = 2, #parts, 3 do
            local name = parts[k + 1]
            if parts[k] == "$" then
                if environment[name] == nil then error("no such name: " .. name) end
                used[name] = true
                text = text .. name .. parts[k + 2]
            elseif name == "op" then
                text = text .. quoted .. parts[k + 2]
            else
                local value = values and values[name]
                if value == nil then error("no value for {" .. name .. "} in " .. template) end
                text = text .. tostring(value) .. parts[k + 2]
            end
        end
        lines[#lines + 1] = text
    end

    --- The name of a local that holds the value.
    function writer.constant(value)
        writer.constants[#writer.constants + 1] = value
        return "K" .. #writer.constants
    end

    --- The next free slot of a kind of scratch: (counter's name, how many there are, k -> slot).
    function writer.slot(counter, limit, get)
        local k = writer[counter]
        if k >= limit then error(op .. ": too many parameters of one kind: " .. counter) end
        writer[counter] = k + 1
        return writer.constant(get(k))
    end

    --- The whole text: the locals, then the lines.
    function writer.text()
        local head, names = { "local E, K = ..." }, {}
        for name in pairs(writer.used) do names[#names + 1] = name end
        table.sort(names)
        for _, name in ipairs(names) do head[#head + 1] = ("local %s = E.%s"):format(name, name) end
        for k = 1, #writer.constants do head[#head + 1] = ("local K%d = K[%d]"):format(k, k) end
        return table.concat(head, "\n") .. "\n" .. table.concat(writer.lines, "\n")
    end
    return writer
end

local function words_table(p, first, step)
    local words = {}
    for k, word in ipairs(p.words) do words[word] = first + step * (k - 1) end
    return words
end

-- One function for each kind of parameter: writes the checks and the filling, and returns what is passed to C. v
-- holds the names for the templates: x (the local with the argument), name (quoted), id.
local convert = {}

function convert.tensor(w, p, v)
    if p.optional then
        w.emit("if {x} == false or ({x} and not $istype($T, {x})) then $bad_tensor({op}, {name}, {x}) end", v)
    else
        w.emit("if not $istype($T, {x}) then $bad_tensor({op}, {name}, {x}) end", v)
    end
    return v.x
end

function convert.tensors(w, p, v)
    v.slot = w.slot("tensors", TENSORS, function(k) return scratch.tensors[k] end)
    w.emit("local t_{id}, n_{id} = nil, 0", v)
    w.emit("if $type({x}) == 'table' then t_{id}, n_{id} = $fill_tensors({slot}, {x}, {op}, {name})", v)
    if p.optional then
        w.emit("elseif $type({x}) ~= 'nil' then $want_list({op}, {name}, {x}) end", v)
    else
        w.emit("else $want_list({op}, {name}, {x}) end", v)
    end
    return "t_" .. v.id .. ", n_" .. v.id
end

-- A pg_number; `head` is how its branch begins, where others come first.
local function convert_number(w, p, v, head, expected)
    v.slot, v.expected = w.slot("numbers", NUMBERS, function(k) return scratch.numbers[k] end), expected
    w.emit(head .. " $type({x}) == 'number' then", v)
    w.emit("if $floor({x}) == {x} and {x} < $LIMIT and {x} >= -$LIMIT then", v)
    w.emit("{slot}.kind = 1 {slot}.i = {x} {slot}.d = {x}", v)
    w.emit("else {slot}.kind = 2 {slot}.i = 0 {slot}.d = {x} end n_{id} = {slot}", v)
    if p.has_default then
        w.emit("elseif $type({x}) == 'nil' then", v)
        if type(p.default) == "number" then
            v.default = w.constant(constant_number(p.default))
            w.emit("n_{id} = {default}", v)
        elseif type(p.default) == "string" then
            v.default = words_table(p, 0, 1)[p.default]
            w.emit("w_{id} = {default}", v)
        end
    end
    w.emit("else n_{id} = $want_number({slot}, {op}, {name}, '{expected}', {x}) end", v)
end

function convert.number(w, p, v)
    w.emit("local n_{id}", v)
    convert_number(w, p, v, "if", "a number")
    return "n_" .. v.id
end

function convert.tensor_number(w, p, v)
    w.emit("local n_{id}, t_{id}", v)
    w.emit("if $istype($T, {x}) then t_{id} = {x}", v)
    convert_number(w, p, v, "elseif", "a Tensor or a number")
    return "t_" .. v.id .. ", n_" .. v.id
end

function convert.number_word(w, p, v)
    v.map, v.words = w.constant(words_table(p, 0, 1)), w.constant(p.words)
    w.emit("local n_{id}, w_{id} = nil, -1", v)
    w.emit("if $type({x}) == 'string' then w_{id} = {map}[{x}] or $bad_word({op}, {name}, {words}, {x})", v)
    convert_number(w, p, v, "elseif", "a number or one of '" .. table.concat(p.words, "', '"):gsub("'", "\\'") .. "\\'")
    return "n_" .. v.id .. ", w_" .. v.id
end

-- A number that is checked; an optional one goes by pointer, into the slot.
local function convert_single(w, p, v, check, default, slots, address)
    if default ~= nil then
        v.default = default
        w.emit("if $type({x}) == 'nil' then {x} = {default} end", v)
    end
    if not p.optional then
        w.emit(check, v)
        return v.x
    end
    v.slot = w.slot(slots, NUMBERS, address)
    w.emit("local s_{id}", v)
    w.emit("if $type({x}) ~= 'nil' then", v)
    w.emit(check, v)
    w.emit("{slot}[0] = {x} s_{id} = {slot} end", v)
    return "s_" .. v.id
end

local INTEGRAL = "$floor({x}) ~= {x} or {x} >= $LIMIT or {x} < -$LIMIT"

function convert.int(w, p, v)
    local check = "if $type({x}) ~= 'number' or " .. INTEGRAL .. " then {x} = $want_int({op}, {name}, {x}) end"
    return convert_single(w, p, v, check, p.default ~= nil and ("%.17g"):format(p.default) or nil, "singles",
        function(k) return scratch.single_int + k end)
end

function convert.ints(w, p, v)
    v.slot = p.rest and w.rest or w.slot("ints", INTS, function(k) return scratch.ints[k] end)
    w.emit("local v_{id}, n_{id}", v)
    local head = "if"
    if p.rest then
        w.emit("if rest_n > 0 then v_{id}, n_{id} = {slot}, rest_n", v)
        head = "elseif"
    end
    w.emit(head .. " $type({x}) == 'table' then v_{id}, n_{id} = $fill_ints({slot}, {x}, {op}, {name})", v)
    w.emit("elseif $type({x}) == 'number' then", v)
    w.emit("if " .. INTEGRAL .. " then $want_int({op}, {name}, {x}) end", v)
    w.emit("{slot}[0] = {x} v_{id} = {slot} n_{id} = 1", v)
    if p.has_default then
        local default = p.default
        v.default, v.count = "nil", 0
        if type(default) == "number" then
            v.default, v.count = w.constant(ffi.new("int64_t[1]", default)), 1
        elseif type(default) == "table" then
            v.default, v.count = w.constant(ffi.new("int64_t[?]", #default + 1, default)), #default
        elseif type(default) == "string" then
            v.count = words_table(p, -1, -1)[default]
        end
        w.emit("elseif $type({x}) == 'nil' then v_{id}, n_{id} = {default}, {count}", v)
    end
    if p.words then
        v.map, v.words = w.constant(words_table(p, -1, -1)), w.constant(p.words)
        w.emit("elseif $type({x}) == 'string' then n_{id} = {map}[{x}] or $bad_word({op}, {name}, {words}, {x})", v)
    end
    w.emit("elseif $istype($int64, {x}) or $istype($uint64, {x}) then {slot}[0] = {x} v_{id} = {slot} n_{id} = 1", v)
    w.emit("else $bad({op}, {name}, 'integers', {x}) end", v)
    return "v_" .. v.id .. ", n_" .. v.id
end

function convert.float(w, p, v)
    local check = "if $type({x}) ~= 'number' then {x} = $want_float({op}, {name}, {x}) end"
    return convert_single(w, p, v, check, p.default ~= nil and w.constant(p.default) or nil, "floats",
        function(k) return scratch.single_float + k end)
end

function convert.bool(w, p, v)
    if p.optional then
        v.absent = p.default == nil and "-1" or p.default and "1" or "0"
        w.emit("local b_{id} = {absent}", v)
        w.emit("if {x} == true then b_{id} = 1 elseif {x} == false then b_{id} = 0", v)
        w.emit("elseif $type({x}) ~= 'nil' then $bad({op}, {name}, 'a boolean', {x}) end", v)
        return "b_" .. v.id
    end
    local head = "if"
    if p.has_default then
        v.default = tostring(p.default)
        w.emit("if $type({x}) == 'nil' then {x} = {default}", v)
        head = "elseif"
    end
    w.emit(head .. " $type({x}) ~= 'boolean' then $bad({op}, {name}, 'a boolean', {x}) end", v)
    return v.x
end

function convert.dtype(w, p, v)
    w.emit("local d_{id}", v)
    local head = "if"
    if p.has_default then
        v.default = p.default and dtype.by_name[p.default].number or -1
        w.emit("if $type({x}) == 'nil' then d_{id} = {default}", v)
        head = "elseif"
    end
    w.emit(head .. " $type({x}) == 'table' and $DTYPES[{x}] then d_{id} = $DTYPES[{x}]", v)
    w.emit("else $bad({op}, {name}, 'a dtype such as pg.float32', {x}) end", v)
    return "d_" .. v.id
end

function convert.word(w, p, v)
    local map = words_table(p, 0, 1)
    v.map, v.words = w.constant(map), w.constant(p.words)
    w.emit("local w_{id}", v)
    local head = "if"
    if p.has_default then
        v.default = p.default and map[p.default] or -1
        w.emit("if $type({x}) == 'nil' then w_{id} = {default}", v)
        head = "elseif"
    end
    w.emit(head .. " $type({x}) == 'string' then w_{id} = {map}[{x}] or $bad_word({op}, {name}, {words}, {x})", v)
    w.emit("else $bad_word({op}, {name}, {words}, {x}) end", v)
    return "w_" .. v.id
end

function convert.string(w, p, v)
    v.expected = p.kind == "device" and "a device such as \\'cpu\\'" or "a string"
    if p.has_default then
        if p.default ~= nil then
            v.default = ("%q"):format(p.default)
            w.emit("if $type({x}) == 'nil' then {x} = {default} end", v)
        end
        w.emit("if $type({x}) ~= 'nil' and $type({x}) ~= 'string' then $bad({op}, {name}, '{expected}', {x}) end", v)
    else
        w.emit("if $type({x}) ~= 'string' then $bad({op}, {name}, '{expected}', {x}) end", v)
    end
    return v.x
end
convert.device = convert.string

-- The last parameter is int...: integers until something else, which is the options; or one list in the first
-- place.
local function write_rest(w, p, fixed)
    w.rest = w.slot("ints", INTS, function(k) return scratch.ints[k] end)
    local v = { p = "p_" .. p.name, name = ("%q"):format(p.name), limit = fixed + 1, slot = w.rest }
    w.emit("local {p}, rest_n = nil, 0", v)
    w.emit("if $type(a1) == 'table' and not $DTYPES[a1] and not $is_options(a1) then", v)
    w.emit("{p} = a1", v)
    w.emit("if a2 then o = $want_options(a2, {op}, {limit}) end", v)
    w.emit("if $type(a3) ~= 'nil' then $surplus({op}, {limit}) end", v)
    w.emit("else", v)
    for k = 1, REST_MAX + 1 do
        v.x, v.following, v.at, v.n, v.before = "a" .. k, "a" .. (k + 1), k - 1, k, fixed + k - 1
        if k <= REST_MAX then
            w.emit("if $type({x}) == 'number' then if " .. INTEGRAL .. " then $want_int({op}, {name}, {x}) end", v)
        else
            w.emit("if $type({x}) == 'number' then $surplus({op}, {before})", v)
        end
        w.emit("elseif $type({x}) == 'nil' then", v)
        w.emit("if $type({following}) ~= 'nil' then $hole({op}, {name}) end", v)
        w.emit("goto done", v)
        w.emit("elseif $type({x}) == 'table' and not $DTYPES[{x}] then o = $want_options({x}, {op}, {before})", v)
        w.emit("if $type({following}) ~= 'nil' then $surplus({op}, {before}) end", v)
        w.emit("goto done", v)
        w.emit("elseif not $is_int64({x}) then $want_int({op}, {name}, {x}) end", v)
        if k <= REST_MAX then w.emit("{slot}[{at}] = {x} rest_n = {n}", v) end
    end
    w.emit("::done::")
    w.emit("end")
end

-- The options are the last argument that is given, if that is a table of string keys.
local function write_options(w, row, formal, fixed, rest)
    if rest then
        w.emit("if o or rest_n > 0 or p_{name} then", { name = rest.name })
    else
        local v = { limit = fixed }
        w.emit("if $type(extra) ~= 'nil' then $surplus({op}, {limit}) end", v)
        w.emit("if $type(opts) ~= 'nil' then o = $want_options(opts, {op}, {limit})", v)
    end
    for k = fixed, 1, -1 do
        local v = { p = formal[k] }
        w.emit("elseif {p} then if $type({p}) == 'table' and not $DTYPES[{p}] and $is_options({p}) then", v)
        w.emit("o, {p} = {p}, nil end", v)
    end
    w.emit("end")

    local known = {}
    for _, p in ipairs(row.params) do known[p.name] = true end
    if row.attrs.out then known.out = true end
    w.emit("if o then")
    w.emit("$check_options(o, {known}, {op})", { known = w.constant(known) })
    for _, p in ipairs(row.params) do
        local v = { x = "p_" .. p.name, name = ("%q"):format(p.name) }
        if p.option then
            w.emit("{x} = o[{name}]", v)
        else
            w.emit("local v = o[{name}]", v)
            if p.rest then
                w.emit("if $type(v) ~= 'nil' then if rest_n > 0 or {x} then $twice({op}, {name}) end {x} = v end", v)
            else
                w.emit("if $type(v) ~= 'nil' then if $type({x}) ~= 'nil' then $twice({op}, {name}) end {x} = v end", v)
            end
        end
    end
    if row.attrs.out then w.emit("o_out = o.out") end
    w.emit("end")
end

--- Writes the results' handles; returns what is passed to C and what is returned.
local function write_results(w, row)
    local call, results = {}, {}
    for k, result in ipairs(row.results) do
        local v = { r = "r_" .. result.name, k = k, n = #row.results }
        local kind = result.kind
        if kind == "tensor" and row.attrs.out then
            w.emit("local {r}", v)
            w.emit("if o_out then", v)
            if #row.results == 1 then
                w.emit("{r} = o_out", v)
            else
                w.emit("if $type(o_out) ~= 'table' then $bad({op}, 'out', 'a list of {n} Tensors', o_out) end", v)
                w.emit("{r} = o_out[{k}]", v)
            end
            w.emit("if not $istype($T, {r}) then $bad_tensor({op}, 'out', {r}) end", v)
            w.emit("else {r} = $T($HANDLE_MAGIC) end", v)
        elseif kind == "tensor" then
            w.emit("local {r} = $T($HANDLE_MAGIC)", v)
        elseif kind == "tensors" then
            w.emit("local {r} = $List($LIST_MAGIC)", v)
        end
        if kind == "tensor" then
            call[k], results[k] = v.r, v.r
        elseif kind == "tensors" then
            call[k], results[k] = v.r, ("take_list(%s)"):format(v.r)
            w.used.take_list = true
        elseif kind == "number" then
            call[k] = w.constant(scratch.number_out[k - 1])
            results[k] = ("from_number(%s)"):format(call[k])
            w.used.from_number = true
        elseif kind == "int" then
            call[k] = w.constant(scratch.int_out + (k - 1))
            results[k] = ("from_int(%s[0])"):format(call[k])
            w.used.from_int = true
        else
            call[k] = w.constant(scratch.bool_out + (k - 1))
            results[k] = call[k] .. "[0]"
        end
    end
    return call, results
end

--- One row's function as text and the constants it needs.
---@param row Row
---@param op string the name in messages
local function generate(row, op)
    local w = new_writer(op)
    local positional, rest = {}, nil
    for _, p in ipairs(row.params) do
        if not p.option then
            if p.rest then rest = p end
            positional[#positional + 1] = p
        end
    end
    if rest and positional[#positional] ~= rest then
        error(row.name .. ": int... must be the last positional parameter")
    end
    local fixed = rest and #positional - 1 or #positional

    local formal = {}
    for k = 1, fixed do formal[k] = "p_" .. positional[k].name end
    if rest then
        for k = 1, REST_MAX + 2 do formal[#formal + 1] = "a" .. k end
    else
        formal[#formal + 1] = "opts"
        formal[#formal + 1] = "extra"
    end
    w.emit("return function({formal})", { formal = table.concat(formal, ", ") })
    w.emit("local o" .. (row.attrs.out and ", o_out" or ""))
    for _, p in ipairs(row.params) do
        if p.option then w.emit("local p_{name}", p) end
    end
    if rest then write_rest(w, rest, fixed) end
    write_options(w, row, formal, fixed, rest)

    -- All handles first: what follows only checks and fills.
    local call, results = write_results(w, row)
    for _, p in ipairs(row.params) do
        call[#call + 1] = convert[p.kind](w, p, { x = "p_" .. p.name, name = ("%q"):format(p.name), id = p.name })
    end
    local v = { call = ("C.%s(%s)"):format(row.symbol, table.concat(call, ", ")) }
    w.used.C = true
    w.emit("local s = {call}", v)
    w.emit("if s ~= 0 and $settle(s) then", v)
    w.emit("s = {call}", v)
    w.emit("if s ~= 0 then $settle_again(s) end", v)
    w.emit("end")
    w.emit("return {results}", {
        results = row.returns_self and "p_" .. row.params[1].name or table.concat(results, ", "),
    })
    w.emit("end")
    return w.text(), w.constants
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
    for _, name in ipairs { "T", "istype", "type", "DTYPES", "is_options", "int64", "first_unknown" } do
        lines[#lines + 1] = ("local %s = E.%s"):format(name, name)
    end
    for k = 1, #set do lines[#lines + 1] = ("local F%d, KNOWN%d = F[%d], KNOWN[%d]"):format(k, k, k, k) end
    lines[#lines + 1] = ("return function(%s)"):format(all)
    lines[#lines + 1] = "local o, n = nil, 0"
    for k = width, 1, -1 do
        lines[#lines + 1] = ("%s type(a%d) ~= 'nil' then n = %d"):format(k == width and "if" or "elseif", k, k)
        lines[#lines + 1] = ("if type(a%d) == 'table' and not DTYPES[a%d] and is_options(a%d) then"):format(k, k, k)
        lines[#lines + 1] = ("o = a%d n = %d end"):format(k, k - 1)
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
                conditions[#conditions + 1] = ("((n >= %d and (%s)) or (n < %d and %s))"):format(k,
                    table.concat(by_position, " or "), k, absent)
                -- Given as an option it must fit too.
                conditions[#conditions + 1] = ("(not o or type(o[%q]) == 'nil' or %s)"):format(p.name,
                    table.concat(class_test(mine, ("o[%q]"):format(p.name)), " or "))
            end
        end
        conditions[#conditions + 1] = ("(not o or first_unknown(o, KNOWN%d) == nil)"):format(index)
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
    return compile(table.concat(lines, "\n"), op, environment, functions, known, table.concat(signatures, "\n  "),
        no_form)
end

-- ---- the names ----

local by_name, by_method, internal = {}, {}, {}
local spaces = {}      -- namespace -> list of short names
for _, row in ipairs(core.rows) do
    local is_internal, method = core.mark(row, "internal"), core.mark(row, "method")
    local where = is_internal and internal or by_name
    where[row.name] = where[row.name] or {}
    table.insert(where[row.name], row)
    if not is_internal and #where[row.name] == 1 then
        local space, short = row.name:match("^(.-)%.?([^.]+)$")
        spaces[space] = spaces[space] or {}
        table.insert(spaces[space], short)
    end
    -- an internal row may still be a method, under a name of its own
    if method and (not is_internal or method ~= true) then
        local name = method == true and row.name:match("([^.]+)$") or method
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
