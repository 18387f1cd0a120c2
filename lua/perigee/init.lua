--- Perigee: PyTorch's semantics in Lua's syntax. local pg = require "perigee"

-- A metatype is for ever, so a Lua state has one Perigee, whatever happens to package.loaded.
local registry = debug.getregistry()
if registry["perigee"] then return registry["perigee"] end

local ffi = require "ffi"
local core = require "perigee.ffi"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local check = require "perigee.check"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"
local construct = require "perigee.construct"
local tensor = require "perigee.tensor"
local indexing = require "perigee.indexing"
require "perigee.printing"
local autograd = require "perigee.autograd"
local random = require "perigee.random"

local C = core.C
local pg = {}

-- Rooms of the library, loaded when first used.
local LAZY = {
    nn = "perigee.nn", optim = "perigee.optim", data = "perigee.data", text = "perigee.text", train = "perigee.train",
    plot = "perigee.plot", repl = "perigee.repl", json = "perigee.json", models = "perigee.models", amp = "perigee.amp",
    cuda = "perigee.cuda", safetensors = "perigee.safetensors", help = "perigee.help", printing = "perigee.printing",
    host = "perigee.host",
}

-- Single names that such a room gives.
local LAZY_NAMES = {}

-- Namespaces of the op table that are no module of their own.
local function is_space(name)
    if wrapper.spaces[name] then return true end
    for space in pairs(wrapper.spaces) do
        if space:sub(1, #name + 1) == name .. "." then return true end
    end
    return false
end

pg.version = ffi.string(C.pg_version())
pg.is_tensor = tensor.is_tensor
pg.is_dtype = dtype.is
pg.namespace = wrapper.namespace
pg.newaxis = indexing.newaxis
pg.autograd = autograd
pg.no_grad, pg.enable_grad = autograd.no_grad, autograd.enable_grad
pg.set_grad_enabled, pg.is_grad_enabled = autograd.set_grad_enabled, autograd.is_grad_enabled
pg.scope = memory.scope
pg.set_printoptions = require("perigee.printing").set_printoptions
pg.get_printoptions = require("perigee.printing").get_printoptions
pg.tensor = construct.tensor
pg.from_memory = construct.from_memory
pg._protect = wrapper.protect

for name, which in pairs(dtype.by_name) do pg[name] = which end
for name, which in pairs(dtype.aliases) do pg[name] = which end
pg.inf, pg.nan, pg.pi, pg.e = math.huge, 0 / 0, math.pi, math.exp(1)

for _, name in ipairs { "manual_seed", "initial_seed", "seed", "get_rng_state", "set_rng_state", "randint" } do
    pg[name] = random[name]
end

for _, name in ipairs {
    "memory_stats", "memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved",
    "reset_peak_memory_stats", "empty_cache", "memory_summary", "collect",
} do
    pg[name] = memory[name]
end

-- ---- dtypes, devices, threads ----

--- The dtype that numbers make.
---@param which DType a floating one
function pg.set_default_dtype(which)
    if not dtype.is(which) then
        errors.fail("set_default_dtype: expected a dtype such as pg.float32, got %s", wrapper.describe(which))
    end
    memory.check(C.pg_set_default_dtype(which.number))
end

function pg.get_default_dtype()
    return dtype.list[C.pg_get_default_dtype()]
end

--- Where tensors are made that are not told where (zeros, randn, tensor, arange, ...): "cpu" until it is set. nil
--- goes back to the cpu. Each thread has its own.
---@param name string?
function pg.set_default_device(name)
    if name ~= nil and type(name) ~= "string" then
        errors.fail("set_default_device: expected a name such as 'cpu' or 'cuda', got %s", wrapper.describe(name))
    end
    memory.check(C.pg_set_default_device(name))
end

---@return string
function pg.get_default_device()
    return ffi.string(C.pg_get_default_device())
end

--- The dtype of an operation on the two.
---@param a DType
---@param b DType
function pg.promote_types(a, b)
    for _, which in ipairs { a, b } do
        if not dtype.is(which) then errors.fail("promote_types: expected a dtype, got %s", wrapper.describe(which)) end
    end
    if a == nil or b == nil then errors.fail("promote_types: expected two dtypes") end
    return dtype.list[C.pg_promote_types(a.number, b.number)]
end

--- Is the tensor's (or the dtype) floating?
function pg.is_floating_point(value)
    if dtype.is(value) then return value.is_floating_point end
    if not tensor.is_tensor(value) then
        errors.fail("is_floating_point: expected a Tensor or a dtype, got %s", wrapper.describe(value))
    end
    return value.dtype.is_floating_point
end

--- The full name of a device, checked: "cpu"; "cuda" is the current CUDA device, "cuda:0".
---@param name string
---@return string
function pg.device(name)
    if type(name) ~= "string" then
        errors.fail("device: expected a name such as 'cpu', got %s", wrapper.describe(name))
    end
    local full = C.pg_device_name(name)
    if full == nil then errors.raise("device: " .. ffi.string(C.pg_last_error())) end
    return ffi.string(full)
end

function pg.set_num_threads(n)
    if type(n) ~= "number" or n % 1 ~= 0 then
        errors.fail("set_num_threads: expected an integer, got %s", wrapper.describe(n))
    end
    memory.check(C.pg_set_num_threads(n))
end

function pg.get_num_threads()
    return C.pg_get_num_threads()
end

--- The instruction set of the kernels in use.
function pg.cpu_isa()
    return ffi.string(C.pg_cpu_isa())
end

pg.backends = { openblas = {}, chains = {} }

--- Does OpenBLAS take the large matrix products? With its version and kernels, or why not.
---@return boolean, string
function pg.backends.openblas.is_available()
    local text = ffi.new("const char *[1]")
    return C.pg_openblas_config(text) == 1, ffi.string(text[0])
end

--- Does a backward run make one kernel of a chain of pointwise ops? The results have the same bits either way.
---@return boolean
function pg.backends.chains.is_enabled()
    return C.pg_chains_enabled()
end

--- For the whole process; on from the start.
---@param enabled boolean
function pg.backends.chains.set_enabled(enabled)
    if type(enabled) ~= "boolean" then
        check.fail("set_enabled: expected true or false, got %s", check.describe(enabled))
    end
    C.pg_chains_set(enabled)
end

--- How many kernels ran so far that stood for several ops, and for how many.
---@return integer kernels
---@return integer ops
function pg.backends.chains.count()
    local counts = ffi.new("int64_t[2]")
    C.pg_chains_count(counts, counts + 1)
    return tonumber(counts[0]), tonumber(counts[1])
end

-- ---- files ----

--- Saves a tensor, or nested tables of tensors, numbers, strings and booleans (state dicts among them), in one
--- safetensors file: whole, or not at all.
---@param value any
---@param path string
function pg.save(value, path)
    return require("perigee.train.checkpoint").save(path, value)
end

--- Loads what pg.save wrote.
---@param path string
---@return any
function pg.load(path)
    return require("perigee.train.checkpoint").load(path)
end

-- ---- names ----

pg._C = setmetatable({}, {
    __index = function(self, key)
        local f = wrapper.internal_op("_C." .. tostring(key)) or wrapper.internal_op(key)
        if not f then return errors.fail("pg._C has no '%s'", tostring(key)) end
        rawset(self, key, f)
        return f
    end,
})

local function names()
    local list = {}
    for name in pairs(pg) do
        if type(name) == "string" and name:sub(1, 1) ~= "_" then list[#list + 1] = name end
    end
    for name in pairs(LAZY) do list[#list + 1] = name end
    for name in pairs(LAZY_NAMES) do list[#list + 1] = name end
    for _, name in ipairs(wrapper.spaces[""] or {}) do list[#list + 1] = name end
    for space in pairs(wrapper.spaces) do
        if space ~= "" then list[#list + 1] = space:match("^[^.]+") end
    end
    return list
end

--- The names that may follow a value: for completion.
---@param value any pg itself, a namespace, a tensor, a dtype, a table
---@return string[] sorted, without doubles
function pg.complete(value)
    local list = {}
    if value == nil or value == pg then
        list = names()
    elseif tensor.is_tensor(value) then
        list = tensor.names()
    elseif type(value) == "table" then
        local metatable = debug.getmetatable(value)
        if type(metatable) == "table" and metatable.__names then
            list = metatable.__names(value)
        else
            for key in pairs(value) do
                if type(key) == "string" then list[#list + 1] = key end
            end
        end
    end
    table.sort(list)
    local unique = {}
    for _, name in ipairs(list) do
        if name ~= unique[#unique] then unique[#unique + 1] = name end
    end
    return unique
end

-- What amp gives under pg itself.
for _, name in ipairs {
    "autocast", "is_autocast_enabled", "get_autocast_dtype", "is_autocast_cache_enabled",
    "set_float32_matmul_precision", "get_float32_matmul_precision",
} do
    LAZY_NAMES[name] = "amp"
end

setmetatable(pg, {
    __index = function(self, key)
        if type(key) ~= "string" then return nil end
        if LAZY_NAMES[key] then
            rawset(self, key, self[LAZY_NAMES[key]][key])
            return rawget(self, key)
        end
        local module = LAZY[key]
        if module then
            local found = package.loaded[module] or package.searchpath(module, package.path)
            if found then
                local loaded = require(module)
                rawset(self, key, loaded)
                return loaded
            end
        end
        local f = wrapper.get(key)
        if f then
            rawset(self, key, f)
            return f
        end
        if is_space(key) then
            local space = wrapper.namespace(key)
            rawset(self, key, space)
            return space
        end
        if key:sub(1, 1) == "_" then return nil end
        return errors.fail("pg has no '%s'%s", key, errors.did_you_mean(key, names()))
    end,
    __tostring = function() return "Perigee " .. pg.version end,
})

tensor.seal()
registry["perigee"] = pg

return pg
