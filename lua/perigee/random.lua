--- Random numbers: one counter-based generator a device, the same numbers everywhere.

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"

local C = core.C
local T = ffi.typeof("pg_tensor")
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

local random = {}

--- The seed, where it is one.
---@return integer
function random.check_seed(seed)
    local fits = (type(seed) == "number" and seed % 1 == 0 and math.abs(seed) < 2 ^ 63)
        or (type(seed) == "cdata" and (ffi.istype(int64, seed) or ffi.istype(uint64, seed)))
    if not fits then errors.fail("manual_seed: seed: expected an integer, got %s", wrapper.describe(seed)) end
    return seed
end

--- Seeds every device's generator.
---@param seed integer an integral number or an int64 cdata
function random.manual_seed(seed)
    memory.check(C.pg_manual_seed(random.check_seed(seed)))
end

--- The seed that was last set.
---@return number
function random.initial_seed()
    return C.pg_initial_seed("cpu")
end

--- A seed from the clock.
function random.fresh_seed()
    return math.floor(memory.now() * 1e9) % 2 ^ 52
end

--- Seeds from the clock and gives the seed.
---@return number
function random.seed()
    local seed = random.fresh_seed()
    random.manual_seed(seed)
    return seed
end

--- Integers in [low, high), or in [0, high): randint(high, size) and randint(low, high, size), as PyTorch's.
---@param low integer
---@param high integer|integer[]
---@param size integer[]|table|nil
---@param options table? dtype (int64 unless told), device
---@return Tensor
function random.randint(low, high, size, options)
    if type(high) == "table" then return wrapper.internal_op("randint")(0, low, high, size) end
    return wrapper.internal_op("randint")(low, high, size, options)
end

--- The generator's state: a uint8 tensor.
---@param device string? "cpu"
---@return Tensor
function random.get_rng_state(device)
    local out = T(C.PG_HANDLE_MAGIC)
    memory.check(C.pg_get_rng_state(out, device or "cpu"))
    return out
end

---@param state Tensor uint8, from get_rng_state
---@param device string? "cpu"
function random.set_rng_state(state, device)
    if not ffi.istype(T, state) then
        errors.fail("set_rng_state: state: expected a Tensor, got %s", wrapper.describe(state))
    end
    memory.check(C.pg_set_rng_state(state, device or "cpu"))
end

return random
