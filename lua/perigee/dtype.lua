--- dtypes: values that name an element type, and make tensors when called: pg.int64{0, 2, 4}.

local core = require "perigee.ffi"
local ffi = require "ffi"

local C = core.C

---@class DType
---@field name string "float32"
---@field number integer PG_FLOAT32
---@field itemsize integer bytes
---@field is_floating_point boolean
---@field min number least finite value
---@field max number

local dtype = { list = {}, by_name = {}, number = {}, aliases = {} }

local DType = { __metatable = "dtype" }
dtype.metatable = DType

function DType.__tostring(self)
    return "pg." .. self.name
end

-- Set by perigee.tensor: (values, options) -> Tensor.
dtype.make = nil

function DType.__call(self, values, options)
    return dtype.make(self, values, options)
end

for number = 0, C.PG_DTYPES - 1 do
    local name = ffi.string(C.pg_dtype_name(number))
    local item = setmetatable({
        name = name,
        number = number,
        itemsize = C.pg_dtype_size(number),
        is_floating_point = name:find("float", 1, true) ~= nil,
    }, DType)
    dtype.list[number] = item
    dtype.by_name[name] = item
    dtype.number[item] = number
end

-- PyTorch's other names.
dtype.aliases = {
    float = dtype.by_name.float32, double = dtype.by_name.float64, half = dtype.by_name.float16,
    long = dtype.by_name.int64, int = dtype.by_name.int32, short = dtype.by_name.int16,
}

function dtype.is(value)
    return type(value) == "table" and dtype.number[value] ~= nil
end

return dtype
