--- x[...] and x[...] = value, with PyTorch's semantics in a table's syntax:
---
---     x[0]                    x[0]
---     x[{ {0, 8}, -1 }]       x[0:8, -1]
---     x[{ "...", {nil, nil, 2} }]   x[..., ::2]
---     x[{ pg.newaxis, ":" }]  x[None, :]
---     x[ids]  x[mask]         int64 and bool tensors
--
-- Numbers, slices, ellipsis and newaxis become views, one after the other; what tensors are left then index
-- together.

local ffi = require "ffi"
local core = require "perigee.ffi"
local construct = require "perigee.construct"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local tensor = require "perigee.tensor"
local wrapper = require "perigee.wrapper"

local C = core.C
local istype = ffi.istype
local floor = math.floor
local T = ffi.typeof("pg_tensor")
local int64 = ffi.typeof("int64_t")

local indexing = {}

indexing.newaxis = setmetatable({}, { __tostring = function() return "pg.newaxis" end, __metatable = "newaxis" })
local newaxis = indexing.newaxis

-- The ops that indexing is made of, bound at first use.
local select_op, slice_op, unsqueeze_op, index_op, index_put_op

local function bind()
    local function op(name)
        local f = wrapper.internal_op(name)
        if not f then error("perigee: indexing needs the op " .. name, 0) end
        return f
    end
    select_op, slice_op, unsqueeze_op = op "select", op "slice", op "unsqueeze"
    index_op, index_put_op = op "index", op "index_put_"
end

local ALL = {}      -- a slice of everything

local function is_index_tensor(item)
    local kind = C.pg_tensor_dtype(item)
    return kind == C.PG_INT64 or kind == C.PG_INT32 or kind == C.PG_INT16 or kind == C.PG_INT8 or kind == C.PG_BOOL
        or kind == C.PG_UINT8
end

local function bad_item(item, k)
    local place = k and (" at [%d]"):format(k) or ""
    if item == nil then return errors.fail("index: nil%s (an index of all is {} or ':')", place) end
    if type(item) == "number" then return errors.fail("index: expected an integer, got %.14g%s", item, place) end
    if type(item) == "string" then
        return errors.fail("index: unknown word '%s'%s (there are ':' and '...')", item, place)
    end
    return errors.fail("index: expected a number, a slice, ':', '...', pg.newaxis or a tensor, got %s%s",
        wrapper.describe(item), place)
end

-- A slice's table read by position; other keys are errors.
local function check_slice(slice, k)
    for key in next, slice do
        if key ~= 1 and key ~= 2 and key ~= 3 then
            errors.fail("index: a slice is {start, end, step}, got the key [%s] at [%d]%s", tostring(key), k,
                type(key) == "number" and " (a list of indices is a tensor: pg.int64{...})" or "")
        end
    end
    for place = 1, 3 do
        local v = slice[place]
        if v ~= nil and not (type(v) == "number" and floor(v) == v) and not istype(int64, v) then
            errors.fail("index: a slice's bounds are integers or nil, got %s at [%d]", wrapper.describe(v), k)
        end
    end
end

--- How many dimensions of the tensor an item takes.
local function takes(item, k)
    local is = type(item)
    if is == "number" then
        if floor(item) ~= item then bad_item(item, k) end
        return 1
    elseif is == "cdata" then
        if istype(T, item) then
            if not is_index_tensor(item) then
                errors.fail("index: tensors used as indices are int64 or bool, got %s",
                    C.pg_tensor_dtype(item) < 0 and "a freed tensor" or tostring(item.dtype))
            end
            if C.pg_tensor_dtype(item) == C.PG_BOOL then return C.pg_tensor_dim(item) end
            return 1
        elseif istype(int64, item) then
            return 1
        end
    elseif is == "table" then
        if item == newaxis then return 0 end
        if not dtype.is(item) then return 1 end
    elseif item == ":" then
        return 1
    elseif item == "..." then
        return 0
    end
    return bad_item(item, k)
end

local function count(key)
    local n = 0
    while key[n + 1] ~= nil do n = n + 1 end
    if n == 0 and next(key) == nil then return 0 end
    if #key ~= n or n == 0 or key[n + 2] ~= nil then
        for k in next, key do
            if type(k) ~= "number" then
                errors.fail("index: expected a list of indices, got the key [%s]", tostring(k))
            end
        end
        bad_item(nil, n + 1)
    end
    return n
end

--- An index tensor on the device of what it indexes: one on the cpu may index anything.
local function beside(item, t)
    local here, there = C.pg_tensor_device(item), C.pg_tensor_device(t)
    if here == there or item.device ~= "cpu" then return item end
    return item:to(t.device)
end

--- Applies the views; returns the view and, where tensors index it, their list and the dimensions they stand for.
local function apply(t, key)
    if not select_op then bind() end
    local is = type(key)
    local single = is ~= "table" or key == newaxis or dtype.is(key)
    local n = single and 1 or count(key)
    local ndim = C.pg_tensor_dim(t)
    if ndim < 0 then return t.ndim end -- raises: the handle is freed

    local taken, ellipsis = 0, 0
    for k = 1, n do
        local item
        if single then item = key else item = key[k] end
        taken = taken + takes(item, not single and k or nil)
        if item == "..." then
            ellipsis = ellipsis + 1
            if ellipsis > 1 then errors.fail("index: '...' may stand only once") end
        end
    end
    if taken > ndim then
        errors.fail("index: too many indices for a tensor of dimension %d: %d", ndim, taken)
    end

    local view, dim = t, 0
    local tensors, dims, m
    for k = 1, n do
        local item
        if single then item = key else item = key[k] end
        is = type(item)
        if is == "number" then
            view = select_op(view, dim, item)
        elseif is == "string" then
            dim = dim + (item == "..." and ndim - taken or 1)
        elseif is == "table" then
            if item == newaxis then
                view = unsqueeze_op(view, dim)
            else
                local a, b, step = item[1], item[2], item[3]
                if a == nil or b == nil or step ~= nil or item[4] ~= nil or #item ~= 2 then check_slice(item, k) end
                if a ~= nil or b ~= nil or step ~= nil then view = slice_op(view, dim, a, b, step) end
            end
            dim = dim + 1
        elseif istype(int64, item) then
            view = select_op(view, dim, item)
        else -- a tensor
            local bool = C.pg_tensor_dtype(item) == C.PG_BOOL
            local own = C.pg_tensor_dim(item)
            if own == 0 and not bool then
                view = select_op(view, dim, construct.item(item))
            else
                if own == 0 then -- a bool of no dimensions: a new dimension of size 1 or 0
                    view, item, own = unsqueeze_op(view, dim), unsqueeze_op(item, 0), 1
                end
                if not tensors then tensors, dims, m = {}, {}, 0 end
                m = m + 1
                tensors[m], dims[m] = beside(item, t), dim
                dim = dim + (bool and own or 1)
            end
        end
    end
    return view, tensors, dims
end

--- x[key].
---@param t Tensor
---@param key any
---@return Tensor
function indexing.get(t, key)
    if type(key) == "number" and floor(key) == key then
        if not select_op then bind() end
        if C.pg_tensor_dim(t) == 0 then errors.fail("index: too many indices for a tensor of dimension 0: 1") end
        return select_op(t, 0, key)
    end
    local view, tensors, dims = apply(t, key)
    if tensors then return index_op(view, tensors, dims) end
    if rawequal(view, t) then return wrapper.internal_op("alias")(t) end
    return view
end

-- Leading dimensions of size 1 that the destination lacks are dropped, as PyTorch does.
local function drop_ones(value, ndim)
    local own = C.pg_tensor_dim(value)
    while own > ndim do
        if value:size(0) ~= 1 then break end
        value, own = select_op(value, 0, 0), own - 1
    end
    return value
end

--- x[key] = value.
---@param t Tensor
---@param key any
---@param value Tensor|number|boolean|table
function indexing.set(t, key, value)
    local view, tensors, dims = apply(t, key)
    if not istype(T, value) then
        local is = type(value)
        if value == nil or is == "string" or is == "function" then
            errors.fail("index: expected a Tensor, a number or a table to assign, got %s", wrapper.describe(value))
        end
        if is ~= "table" and not tensors then
            view:fill_(value)
            return
        end
        value = construct.tensor(value, { dtype = view.dtype, device = view.device })
    end
    if tensors then
        if C.pg_tensor_dim(value) == 0 then value = beside(value, view) end
        index_put_op(view, tensors, dims, value)
    else
        view:copy_(drop_ones(value, C.pg_tensor_dim(view)))
    end
end

indexing.ALL = ALL

tensor.get_index, tensor.set_index = indexing.get, indexing.set

return indexing
