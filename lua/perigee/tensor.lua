--- The Tensor: the metatype of the engine's handle, its fields and the methods that are not ops.

local ffi = require "ffi"
local core = require "perigee.ffi"
local construct = require "perigee.construct"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"

local C = core.C
local istype = ffi.istype
local T = ffi.typeof("pg_tensor")
local MAGIC = C.PG_HANDLE_MAGIC

local tensor = {}

-- Fields are functions of the handle, methods are what is called; both are looked up by name, fields second.
local methods, fields, setters = {}, {}, {}
tensor.methods, tensor.fields, tensor.setters = methods, fields, setters

-- Set by perigee.indexing: (t, key), (t, key, value).
tensor.get_index, tensor.set_index = nil, nil

local function is_tensor(value)
    return istype(T, value)
end
tensor.is_tensor = is_tensor

local function live(t, name)
    if not istype(T, t) then
        errors.fail("%s: expected a Tensor, got %s (methods are called with ':')", name, wrapper.describe(t))
    end
    return t
end

-- ---- what a tensor is ----

local function freed()
    return errors.fail("the Tensor has been freed")
end

-- What the engine answers about a tensor; negative where the handle is empty.
local function answer(n)
    if n < 0 then freed() end
    return n
end

local sizes = core.shared_buffer("int64_t[?]", C.PG_DIMS_MAX)

local Size = {}
Size.__index = Size

--- Prints as PyTorch's sizes do: (2, 3), (3,), ().
function Size.__tostring(self)
    if #self == 1 then return ("(%d,)"):format(self[1]) end
    return "(" .. table.concat(self, ", ") .. ")"
end

function Size.__eq(a, b)
    if #a ~= #b then return false end
    for k = 1, #a do
        if a[k] ~= b[k] then return false end
    end
    return true
end

function Size.__concat(a, b)
    return tostring(a) .. tostring(b)
end

--- The product of the sizes.
function Size.numel(self)
    local n = 1
    for k = 1, #self do n = n * self[k] end
    return n
end

local function list_of(n)
    if n < 0 then freed() end
    local list = {}
    for k = 1, n do list[k] = tonumber(sizes[k - 1]) end
    return setmetatable(list, Size)
end

function fields.shape(t)
    return list_of(C.pg_tensor_sizes(t, sizes))
end

function fields.dtype(t)
    local number = C.pg_tensor_dtype(t)
    if number < 0 then freed() end
    return dtype.list[number]
end

function fields.device(t)
    local name = C.pg_tensor_device(t)
    if name == nil then freed() end
    return ffi.string(name)
end


function fields.ndim(t) return answer(C.pg_tensor_dim(t)) end

function fields.id(t)
    local id = C.pg_tensor_id(t)
    if id == 0 then freed() end
    return id
end

function fields._version(t) return answer(C.pg_tensor_version(t)) end

function fields.requires_grad(t) return answer(C.pg_tensor_requires_grad(t)) ~= 0 end

function fields.is_leaf(t) return answer(C.pg_tensor_is_leaf(t)) ~= 0 end

function fields.is_view(t) return answer(C.pg_tensor_is_view(t)) ~= 0 end

function fields.retains_grad(t) return answer(C.pg_tensor_retains_grad(t)) ~= 0 end

function fields.grad(t)
    local out = T(MAGIC)
    memory.check(C.pg_get_grad(out, t))
    if out.impl == nil then return nil end
    return out
end

--- The name of the node that made the tensor, "AddBackward0"; nil for a leaf.
function fields.grad_fn(t)
    answer(C.pg_tensor_dim(t))
    local name = C.pg_tensor_grad_fn(t)
    if name == nil then return nil end
    return ffi.string(name)
end

local function detach(t)
    local out = T(MAGIC)
    memory.check(C.pg_detach(out, t))
    return out
end

fields.data = detach

function fields.itemsize(t) return fields.dtype(t).itemsize end

function fields.nbytes(t) return C.pg_tensor_numel(t) * fields.dtype(t).itemsize end

function fields.is_cuda(t) return fields.device(t):sub(1, 4) == "cuda" end

--- The dimensions in reverse order.
function fields.T(t)
    local n = fields.ndim(t)
    local order = {}
    for k = 1, n do order[k] = n - k end
    return t:permute(order)
end

function fields.mT(t)
    if fields.ndim(t) < 2 then errors.fail("mT: expected at least 2 dimensions, got %d", fields.ndim(t)) end
    return t:transpose(-2, -1)
end

function setters.requires_grad(t, value)
    if type(value) ~= "boolean" then
        errors.fail("requires_grad: expected a boolean, got %s", wrapper.describe(value))
    end
    memory.check(C.pg_requires_grad_(t, value and 1 or 0))
end

function setters.grad(t, value)
    if value ~= nil and not istype(T, value) then
        errors.fail("grad: expected a Tensor or nil, got %s", wrapper.describe(value))
    end
    memory.check(C.pg_set_grad(t, value))
end

-- ---- methods ----

local function dim_argument(name, dim, n)
    if type(dim) ~= "number" or dim % 1 ~= 0 then
        errors.fail("%s: dim: expected an integer, got %s", name, wrapper.describe(dim))
    end
    local low, high = -math.max(n, 1), math.max(n, 1) - 1
    if dim < low or dim > high or n == 0 then
        errors.fail("%s: dimension out of range (expected to be in [%d, %d], but got %d)", name, low, high, dim)
    end
    return dim < 0 and dim + n or dim
end

local function option_dim(name, dim)
    if type(dim) == "table" then
        wrapper.check_options(dim, { dim = true }, name)
        return dim.dim
    end
    return dim
end

--- The sizes, or the size of one dimension.
---@param dim integer?
function methods.size(t, dim)
    live(t, "size")
    local n = answer(C.pg_tensor_sizes(t, sizes))
    dim = option_dim("size", dim)
    if dim == nil then return list_of(n) end
    return tonumber(sizes[dim_argument("size", dim, n)])
end

--- The strides in elements, or the stride of one dimension.
---@param dim integer?
function methods.stride(t, dim)
    live(t, "stride")
    local n = answer(C.pg_tensor_strides(t, sizes))
    dim = option_dim("stride", dim)
    if dim == nil then return list_of(n) end
    return tonumber(sizes[dim_argument("stride", dim, n)])
end

function methods.dim(t) return answer(C.pg_tensor_dim(live(t, "dim"))) end
methods.ndimension = methods.dim

function methods.numel(t) return answer(C.pg_tensor_numel(live(t, "numel"))) end
methods.nelement = methods.numel

function methods.element_size(t) return fields.dtype(live(t, "element_size")).itemsize end

function methods.storage_offset(t) return answer(C.pg_tensor_storage_offset(live(t, "storage_offset"))) end

function methods.is_contiguous(t) return answer(C.pg_tensor_is_contiguous(live(t, "is_contiguous"))) ~= 0 end

function methods.is_floating_point(t) return fields.dtype(live(t, "is_floating_point")).is_floating_point end

--- Do two tensors share their storage?
function methods.same_storage(t, other)
    return answer(C.pg_tensor_same_storage(live(t, "same_storage"), live(other, "same_storage"))) ~= 0
end

function methods.item(t) return construct.item(live(t, "item")) end

function methods.totable(t) return construct.totable(live(t, "totable")) end
methods.tolist = methods.totable

function methods.data_ptr(t) return construct.data_ptr(live(t, "data_ptr")) end

function methods.to_memory(t, pointer, bytes) return construct.to_memory(live(t, "to_memory"), pointer, bytes) end

--- Drops this handle; a later use of it is an error. Other handles of the tensor live on.
function methods.free(t)
    memory.check(C.pg_tensor_free(live(t, "free")))
end

--- The same memory without history.
function methods.detach(t) return detach(live(t, "detach")) end

function methods.detach_(t)
    memory.check(C.pg_detach_(live(t, "detach_")))
    return t
end

---@param requires_grad boolean? true
function methods.requires_grad_(t, requires_grad)
    live(t, "requires_grad_")
    if requires_grad == nil then requires_grad = true end
    setters.requires_grad(t, requires_grad)
    return t
end

--- Keeps the gradient of a tensor that is no leaf.
function methods.retain_grad(t)
    memory.check(C.pg_retain_grad(live(t, "retain_grad")))
end

-- ---- conversions ----

local known_to = { dtype = true, device = true, copy = true, non_blocking = true }

--- Another dtype or device; the tensor itself where nothing changes. to(dtype), to(device), to(device, dtype),
--- to(other), to({dtype =, device =, copy =, non_blocking =}). With non_blocking a copy between pinned memory and a
--- device runs when the stream comes to it: what arrives on the CPU may be read after pg.cuda.synchronize().
---@return Tensor
function methods.to(t, ...)
    live(t, "to")
    local which, device, copy, non_blocking
    local n = select("#", ...)
    for k = 1, n do
        local v = (select(k, ...))
        if dtype.is(v) then
            if which then errors.fail("to: two dtypes") end
            which = v
        elseif type(v) == "string" then
            if device then errors.fail("to: two devices") end
            device = v
        elseif istype(T, v) then
            which, device = fields.dtype(v), fields.device(v)
        elseif type(v) == "table" and k == n then
            wrapper.check_options(v, known_to, "to")
            if v.dtype ~= nil and not dtype.is(v.dtype) then
                errors.fail("to: dtype: expected a dtype, got %s", wrapper.describe(v.dtype))
            end
            which, device, copy = v.dtype or which, v.device or device, v.copy
            non_blocking = v.non_blocking
        elseif v ~= nil then
            errors.fail("to: expected a dtype, a device or a Tensor, got %s", wrapper.describe(v))
        end
    end
    return tensor.convert(t, { dtype = which, device = device, copy = copy, non_blocking = non_blocking })
end

--- The op behind the conversions.
function tensor.convert(t, options)
    if next(options) == nil then return t end
    return wrapper.internal_op("_to")(t, options)
end

for alias, which in pairs {
    float = "float32", double = "float64", half = "float16", bfloat16 = "bfloat16", long = "int64", int = "int32",
    short = "int16", char = "int8", byte = "uint8", bool = "bool",
} do
    local options = { dtype = dtype.by_name[which] }
    methods[alias] = function(t) return tensor.convert(live(t, alias), options) end
end

function methods.cpu(t) return tensor.convert(live(t, "cpu"), { device = "cpu" }) end

--- On a CUDA device, the current one by default: cuda(), cuda(1), cuda("cuda:1", {non_blocking = true}).
---@param device string|integer|nil
---@param options table? non_blocking
function methods.cuda(t, device, options)
    live(t, "cuda")
    if type(device) == "table" then device, options = nil, device end
    if type(device) == "number" then device = ("cuda:%d"):format(device) end
    if options ~= nil then wrapper.check_options(options, { non_blocking = true }, "cuda") end
    return tensor.convert(t, { device = device or "cuda", non_blocking = options and options.non_blocking })
end

--- A copy in memory that a CUDA device can reach by itself (page-locked); the tensor itself where it is there.
---@return Tensor
function methods.pin_memory(t)
    local out = T(C.PG_HANDLE_MAGIC)
    memory.call(C.pg_pin_memory, out, live(t, "pin_memory"))
    return out
end

function methods.is_pinned(t) return answer(C.pg_tensor_is_pinned(live(t, "is_pinned"))) ~= 0 end

--- t's memory goes to others only after what is now on the stream has run.
---@param s cuda.Stream
function methods.record_stream(t, s)
    live(t, "record_stream")
    memory.check(C.pg_record_stream(t, require("perigee.cuda").check_stream(s, "record_stream").pointer))
end

function methods.type_as(t, other) return methods.to(t, fields.dtype(live(other, "type_as"))) end

function methods.view_as(t, other) return t:view(live(other, "view_as").shape) end

function methods.reshape_as(t, other) return t:reshape(live(other, "reshape_as").shape) end

function methods.expand_as(t, other) return t:expand(live(other, "expand_as").shape) end

--- Iterates over dimension 0: for i, row in x:iter() do ... end, i from 0.
function methods.iter(t)
    live(t, "iter")
    if fields.ndim(t) == 0 then errors.fail("iter: a 0-dim tensor has no dimension to go over") end
    local n = methods.size(t, 0)
    return function(x, k)
        k = k + 1
        if k < n then return k, x[k] end
    end, t, -1
end

-- ---- the metatype ----

local function names_of_tensors()
    local list = {}
    for name in pairs(methods) do list[#list + 1] = name end
    for name in pairs(fields) do list[#list + 1] = name end
    for name in pairs(wrapper.by_method) do list[#list + 1] = name end
    return list
end
tensor.names = names_of_tensors

local function missing(t, key)
    local method = wrapper.method(key)
    if method then
        methods[key] = method
        return method
    end
    if key == ":" or key == "..." then return tensor.get_index(t, key) end
    return errors.fail("a Tensor has no method or field '%s'%s", key, errors.did_you_mean(key, names_of_tensors()))
end

local Tensor = { __gc = C.pg_tensor_release }
tensor.metatable = Tensor

function Tensor.__index(t, key)
    if type(key) == "string" then
        local method = methods[key]
        if method then return method end
        local field = fields[key]
        if field then return field(t) end
        return missing(t, key)
    end
    return tensor.get_index(t, key)
end

function Tensor.__newindex(t, key, value)
    if type(key) == "string" and key ~= ":" and key ~= "..." then
        local setter = setters[key]
        if setter then return setter(t, value) end
        if fields[key] or methods[key] then errors.fail("a Tensor's '%s' cannot be assigned", key) end
        errors.fail("a Tensor has no field '%s' to assign%s", key, errors.did_you_mean(key, names_of_tensors()))
    end
    return tensor.set_index(t, key, value)
end

--- Identity: two handles of one tensor are equal. (For elements: a:eq(b).)
function Tensor.__eq(a, b)
    return istype(T, a) and istype(T, b) and a.impl == b.impl
end

function Tensor.__lt() return errors.fail("tensors are not ordered: use :lt or :gt") end

function Tensor.__le() return errors.fail("tensors are not ordered: use :le or :ge") end

function Tensor.__len(t)
    if answer(C.pg_tensor_dim(t)) == 0 then errors.fail("#: a 0-dim tensor has no length") end
    return methods.size(t, 0)
end

-- ---- operators ----

local METAMETHODS = {
    ["+"] = "__add", ["-"] = "__sub", ["*"] = "__mul", ["/"] = "__div", ["%"] = "__mod", ["^"] = "__pow", neg = "__unm",
}
local COMMUTES = { ["+"] = true, ["*"] = true }

--- A number as a 0-dim tensor beside t: its dtype gives way to t's as a number's does.
local function scalar_beside(value, t)
    local which
    if type(value) == "number" and value % 1 ~= 0 then
        which = dtype.list[C.pg_get_default_dtype()]
        local mine = fields.dtype(t)
        if mine.is_floating_point then which = mine end
    else
        which = dtype.by_name.int64
    end
    return construct.tensor(value, { dtype = which, device = "cpu" })
end

local function is_operand(value)
    return type(value) == "number" or (type(value) == "cdata" and not istype(T, value))
end

local function make_operator(row, op)
    local f
    local function get()
        f = wrapper.get(row.name)
        return f
    end
    if op == "neg" then
        return function(a)
            return (f or get())(a)
        end
    end
    local function reversed(a, b)
        if not is_operand(a) then
            errors.fail("%s: expected a Tensor or a number on the left, got %s", row.short, wrapper.describe(a))
        end
        if row.params[1].kind == "tensor_number" then return (f or get())(a, b) end
        if COMMUTES[op] then return (f or get())(b, a) end
        return (f or get())(scalar_beside(a, b), b)
    end
    return function(a, b)
        if istype(T, a) then
            local g = f or get()
            return g(a, b)
        end
        return reversed(a, b)
    end
end

for _, row in ipairs(core.rows) do
    local operator = core.mark(row, "operator")
    if operator then
        local name = METAMETHODS[operator]
        if Tensor[name] then error("two rows claim the operator " .. operator) end
        Tensor[name] = make_operator(row, operator)
    end
end

for operator, name in pairs(METAMETHODS) do
    if not Tensor[name] then
        Tensor[name] = function() return errors.fail("no op is bound to the operator '%s'", operator) end
    end
end

--- Call once everything that adds metamethods is loaded: a metatype is for ever.
function tensor.seal()
    return ffi.metatype("pg_tensor", Tensor)
end

return tensor
