--- Tensors from Lua values and from memory, and back: pg.tensor, totable, item, from_memory, to_memory.

local ffi = require "ffi"
local core = require "perigee.ffi"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"

local C = core.C
local istype = ffi.istype
local T = ffi.typeof("pg_tensor")
local MAGIC = C.PG_HANDLE_MAGIC
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")
local int64_array, double_array = ffi.typeof("int64_t[?]"), ffi.typeof("double[?]")
local DIMS_MAX = C.PG_DIMS_MAX
local EXACT = 2 ^ 53

local construct = {}

local function is_int64(v)
    return type(v) == "cdata" and (istype(int64, v) or istype(uint64, v))
end

local function is_scalar(v)
    local is = type(v)
    return is == "number" or is == "boolean" or is_int64(v)
end

-- "[1][0]" of a path of 1-based positions: what the user would write to index the tensor.
local function place(path, depth)
    local parts = {}
    for k = 1, depth do parts[k] = ("[%d]"):format(path[k] - 1) end
    return #parts > 0 and table.concat(parts) or "the value"
end

local function count(list, path, depth)
    local n = 0
    while list[n + 1] ~= nil do n = n + 1 end
    local extra = 0
    for _ in next, list do extra = extra + 1 end
    if extra ~= n then
        errors.fail("tensor: %s: expected a list without holes and other keys", place(path, depth))
    end
    return n
end

local function what(value)
    if type(value) == "table" then
        local n = 0
        while value[n + 1] ~= nil do n = n + 1 end
        return ("has %d element%s"):format(n, n == 1 and "" or "s")
    end
    return "is " .. wrapper.describe(value)
end

local function ragged(path, depth, value, first)
    local here, zero = place(path, depth), {}
    for k = 1, depth do zero[k] = 1 end
    return errors.fail("tensor: ragged: %s %s, %s %s", here, what(value), place(zero, depth), what(first))
end

--- The shape of a nested table, from its first elements.
local function shape_of(values)
    local shape, v, path = {}, values, {}
    while type(v) == "table" and not dtype.is(v) do
        local n = count(v, path, #shape)
        if #shape == DIMS_MAX then errors.fail("tensor: more than %d dimensions", DIMS_MAX) end
        shape[#shape + 1] = n
        path[#shape] = 1
        if n == 0 then break end
        v = v[1]
    end
    return shape, v
end

--- Calls put(k, value) for each element in row-major order, checking the shape.
local function walk(values, shape, put)
    local depth = #shape
    if depth == 0 then return put(0, values, {}, 0) end
    local path, k = {}, 0
    local first = {}
    local v = values
    for d = 1, depth do
        first[d] = v
        v = v[1]
    end
    local leaf = v
    local function go(list, d)
        path[d] = 1
        if type(list) ~= "table" or dtype.is(list) then return ragged(path, d - 1, list, first[d]) end
        local n = shape[d]
        if d > 1 and list ~= first[d] and count(list, path, d - 1) ~= n then
            return ragged(path, d - 1, list, first[d])
        end
        for j = 1, n do
            path[d] = j
            local item = list[j]
            if d < depth then
                go(item, d + 1)
            else
                if type(item) == "table" then return ragged(path, d, item, leaf) end
                put(k, item, path, d)
                k = k + 1
            end
        end
    end
    return go(values, 1)
end

local known = { dtype = true, device = true, requires_grad = true }

local function check_device(where, device)
    if device ~= nil and type(device) ~= "string" then
        errors.fail("%s: device: expected a name such as 'cpu', got %s", where, wrapper.describe(device))
    end
    return device
end

local function check_dtype(where, which)
    if which ~= nil and not dtype.is(which) then
        errors.fail("%s: dtype: expected a dtype such as pg.float32, got %s", where, wrapper.describe(which))
    end
    return which
end

local function finish(out, requires_grad)
    if requires_grad ~= nil then
        if type(requires_grad) ~= "boolean" then
            errors.fail("tensor: requires_grad: expected a boolean, got %s", wrapper.describe(requires_grad))
        end
        if requires_grad then memory.check(C.pg_requires_grad_(out, 1)) end
    end
    return out
end

local function from_values(out, d, i, n, shape, which, device)
    local sizes = int64_array(#shape + 1)
    for k = 1, #shape do sizes[k - 1] = shape[k] end
    local s = C.pg_from_values(out, d, i, n, sizes, #shape, which.number, device)
    if s ~= 0 and memory.settle(s) then
        memory.check(C.pg_from_values(out, d, i, n, sizes, #shape, which.number, device))
    end
    return out
end

--- A tensor of a number, a boolean or nested tables of them (or of one-element tensors). Numbers make the default
--- dtype, booleans bool, int64 cdata int64, unless a dtype is given. A tensor is copied, without its history.
---@param values any
---@param options table? dtype, device, requires_grad
---@return Tensor
function construct.tensor(values, options, surplus)
    if surplus ~= nil then errors.fail("tensor: takes a value and a table of options") end
    local which, device, requires_grad
    if options ~= nil then
        if type(options) ~= "table" or dtype.is(options) then
            errors.fail("tensor: expected a table of options such as {dtype = pg.int64}, got %s",
                wrapper.describe(options))
        end
        wrapper.check_options(options, known, "tensor")
        which, device = check_dtype("tensor", options.dtype), check_device("tensor", options.device)
        requires_grad = options.requires_grad
    end
    if istype(T, values) then
        local copy = values:detach():clone()
        if which or device then copy = copy:to(which or device, which and device or nil) end
        return finish(copy, requires_grad)
    end
    if not is_scalar(values) and (type(values) ~= "table" or dtype.is(values)) then
        errors.fail("tensor: expected a number, a boolean or nested tables of them, got %s", wrapper.describe(values))
    end
    local shape = shape_of(values)
    local n = 1
    for k = 1, #shape do n = n * shape[k] end
    if n > 2 ^ 40 then errors.fail("tensor: too many elements") end

    -- Which kinds of value there are decides the dtype; then the elements are copied.
    local numbers, booleans, integers, fractions = false, false, false, false
    walk(values, shape, function(_, v, path, depth)
        local is = type(v)
        if is == "number" then
            numbers = true
            if v % 1 ~= 0 or v >= 2 ^ 63 or v < -2 ^ 63 then fractions = true end
        elseif is == "boolean" then
            booleans = true
        elseif is_int64(v) then
            integers = true
        elseif istype(T, v) then
            local kind = v.dtype
            if kind.name == "bool" then
                booleans = true
            elseif kind.is_floating_point then
                numbers, fractions = true, true
            else
                integers = true
            end
        else
            errors.fail("tensor: %s: expected a number, got %s", place(path, depth), wrapper.describe(v))
        end
    end)
    if not which then
        if numbers or not (booleans or integers) then
            which = dtype.list[C.pg_get_default_dtype()]
        elseif integers then
            which = dtype.by_name.int64
        else
            which = dtype.by_name.bool
        end
    end
    -- int64 values beyond 2^53 and doubles with fractions cannot meet in one array. Beside int64 values, whole numbers
    -- travel as int64 where an integer dtype is wanted; all else travels as doubles.
    local out = T(MAGIC)
    if integers and (not numbers or not fractions and not which.is_floating_point) then
        local i = int64_array(n + 1)
        walk(values, shape, function(k, v)
            if istype(T, v) then v = v:item() end
            if type(v) == "boolean" then v = v and 1 or 0 end
            i[k] = v
        end)
        from_values(out, nil, i, n, shape, which, device)
    else
        local d = double_array(n + 1)
        walk(values, shape, function(k, v)
            if istype(T, v) then v = v:item() end
            if type(v) == "boolean" then v = v and 1 or 0 end
            d[k] = tonumber(v)
        end)
        from_values(out, d, nil, n, shape, which, device)
    end
    return finish(out, requires_grad)
end

function dtype.make(which, values, options)
    if options == nil then
        return construct.tensor(values, { dtype = which })
    end
    if type(options) ~= "table" or dtype.is(options) then
        errors.fail("%s: expected a table of options, got %s", which.name, wrapper.describe(options))
    end
    if options.dtype ~= nil then errors.fail("%s: the dtype is given twice", which.name) end
    local all = { dtype = which }
    for key, value in pairs(options) do all[key] = value end
    return construct.tensor(values, all)
end

-- ---- out again ----

local scratch_number = core.shared_buffer("pg_number")

--- The value of a tensor with one element: a number, a boolean, an int64 cdata beyond 2^53.
---@param t Tensor
function construct.item(t)
    local s = C.pg_item(scratch_number, t)
    if s ~= 0 then memory.check(s) end
    return wrapper.from_number(scratch_number)
end

local CHUNK = 4096
local doubles, integers = core.shared_buffer("double[?]", CHUNK), core.shared_buffer("int64_t[?]", CHUNK)

--- Calls f(k, value) for elements [start, start + n) in row-major order.
local function each(t, start, n, f)
    local kind = t.dtype
    local floating, bool = kind.is_floating_point, kind.name == "bool"
    local k = 0
    while k < n do
        local m = math.min(CHUNK, n - k)
        memory.check(C.pg_to_values(floating and doubles or nil, (not floating) and integers or nil, t, start + k, m))
        for j = 0, m - 1 do
            local v
            if floating then
                v = doubles[j]
            elseif bool then
                v = integers[j] ~= 0
            else
                v = tonumber(integers[j])
                if v >= EXACT or v <= -EXACT then v = int64(integers[j]) end
            end
            f(k + j, v)
        end
        k = k + m
    end
end
construct.each = each

--- Nested tables of a tensor's elements; the value itself for a 0-dim one.
---@param t Tensor
function construct.totable(t)
    local shape = t.shape
    local depth = #shape
    if depth == 0 then return construct.item(t) end
    local n = 1
    for k = 1, depth do n = n * shape[k] end
    local result = {}
    if n == 0 then
        local function empty(d)
            local list = {}
            if d < depth then
                for k = 1, shape[d] do list[k] = empty(d + 1) end
            end
            return list
        end
        return empty(1)
    end
    -- open[d] is the list being filled at depth d.
    local open, last = { result }, shape[depth]
    for d = 2, depth do
        open[d] = {}
        open[d - 1][1] = open[d]
    end
    local row, filled = open[depth], 0
    local at = {}
    for d = 1, depth do at[d] = 1 end
    each(t, 0, n, function(_, v)
        if filled == last then
            local d = depth - 1
            while at[d] == shape[d] do
                at[d] = 1
                d = d - 1
            end
            at[d] = at[d] + 1
            for e = d + 1, depth do
                open[e] = {}
                open[e - 1][at[e - 1]] = open[e]
            end
            row, filled = open[depth], 0
        end
        filled = filled + 1
        row[filled] = v
    end)
    return result
end

-- ---- memory ----

local C_TYPES = {
    bool = "uint8_t", uint8 = "uint8_t", int8 = "int8_t", int16 = "int16_t", int32 = "int32_t", int64 = "int64_t",
    float16 = "uint16_t", bfloat16 = "uint16_t", float32 = "float", float64 = "double",
}

--- The address of the first element, as a pointer to the element's C type (float16, bfloat16: uint16_t; bool:
--- uint8_t). Valid while the tensor lives. Do not read floating elements through it in Lua: a NaN with a payload
--- is no Lua number; use item or totable.
---@param t Tensor on the CPU
function construct.data_ptr(t)
    local pointer = C.pg_tensor_data_ptr(t)
    if pointer == nil then
        if t:numel() == 0 then return ffi.cast(C_TYPES[t.dtype.name] .. " *", nil) end
        memory.raise()
    end
    return ffi.cast(C_TYPES[t.dtype.name] .. " *", pointer)
end

local known_memory = { device = true, requires_grad = true }

--- A tensor with a copy of memory in row-major order.
---@param source string|cdata a string of bytes, or a pointer or array
---@param shape integer[]
---@param which DType
---@param options table? device, requires_grad
---@return Tensor
function construct.from_memory(source, shape, which, options)
    if type(source) ~= "string" and type(source) ~= "cdata" then
        errors.fail("from_memory: expected a string or a pointer, got %s", wrapper.describe(source))
    end
    if istype(T, source) then errors.fail("from_memory: expected a string or a pointer, got a Tensor") end
    if type(shape) == "number" then shape = { shape } end
    if type(shape) ~= "table" then
        errors.fail("from_memory: shape: expected a list of integers, got %s", wrapper.describe(shape))
    end
    if not dtype.is(which) then
        errors.fail("from_memory: expected a dtype such as pg.float32, got %s", wrapper.describe(which))
    end
    if options ~= nil then wrapper.check_options(options, known_memory, "from_memory") end
    local device = options and check_device("from_memory", options.device)
    local sizes, n = wrapper.fill_ints(int64_array(64), shape, "from_memory", "shape")
    local bytes = which.itemsize
    for k = 0, n - 1 do bytes = bytes * tonumber(sizes[k]) end
    if type(source) == "string" and #source ~= bytes then
        errors.fail("from_memory: the shape takes %.0f bytes, the string has %d", bytes, #source)
    end
    local out = T(MAGIC)
    local address = type(source) == "string" and ffi.cast("const void *", source) or source
    memory.call(C.pg_from_memory, out, address, bytes, sizes, n, which.number, device)
    return finish(out, options and options.requires_grad)
end

--- Copies the elements in row-major order to memory; without a pointer, gives a string of their bytes.
---@param t Tensor
---@param pointer cdata?
---@param bytes integer? how much room there is; needed for plain pointers, known for arrays
function construct.to_memory(t, pointer, bytes)
    local needed = t:numel() * t.dtype.itemsize
    if pointer == nil then
        local buffer = ffi.new("char[?]", needed + 1)
        memory.check(C.pg_to_memory(t, buffer, needed))
        return ffi.string(buffer, needed)
    end
    if type(pointer) ~= "cdata" then
        errors.fail("to_memory: expected a pointer, got %s", wrapper.describe(pointer))
    end
    if bytes == nil then
        local is_array = tostring(ffi.typeof(pointer)):find("%[") ~= nil
        if not is_array then errors.fail("to_memory: a plain pointer needs the number of bytes behind it") end
        bytes = ffi.sizeof(pointer)
    end
    if type(bytes) ~= "number" then
        errors.fail("to_memory: bytes: expected a number, got %s", wrapper.describe(bytes))
    end
    memory.check(C.pg_to_memory(t, pointer, bytes))
    return pointer
end

return construct
