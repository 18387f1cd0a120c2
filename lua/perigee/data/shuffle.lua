--- Permutations from a seed, independent of the engine's generator: the order of the data can be restored without
-- touching the numbers that dropout draws. SplitMix64 (Steele, Lea, Flood 2014) and Fisher and Yates.

local bit = require("bit")
local ffi = require("ffi")

local bxor, rshift = bit.bxor, bit.rshift
local uint64 = ffi.typeof("uint64_t")

local M = {}

--- A permutation of 0 .. n - 1.
---@param n integer
---@param seed number|cdata an integer
---@return cdata int64_t[n]
function M.permutation(n, seed)
    local order = ffi.new("int64_t[?]", n > 0 and n or 1)
    for i = 0, n - 1 do
        order[i] = i
    end
    local state = ffi.cast(uint64, ffi.cast("int64_t", seed))
    for i = n - 1, 1, -1 do
        state = state + 0x9E3779B97F4A7C15ULL
        local z = state
        z = bxor(z, rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
        z = bxor(z, rshift(z, 27)) * 0x94D049BB133111EBULL
        z = bxor(z, rshift(z, 31))
        -- 53 bits as a fraction of 1: the bias is below n / 2^53.
        local j = math.floor(tonumber(rshift(z, 11)) * 2 ^ -53 * (i + 1))
        order[i], order[j] = order[j], order[i]
    end
    return order
end

--- The seed of an epoch: neighbouring seeds and epochs share nothing.
---@param seed number
---@param epoch integer
---@return cdata
function M.epoch_seed(seed, epoch)
    local z = ffi.cast(uint64, ffi.cast("int64_t", seed)) + ffi.cast(uint64, epoch + 1) * 0xD1342543DE82EF95ULL
    z = bxor(z, rshift(z, 32)) * 0xDABA0B6EB09322E3ULL
    return ffi.cast("int64_t", bxor(z, rshift(z, 32)))
end

return M
