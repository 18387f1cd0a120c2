-- Every op, with its gradients, on the cpu and on another device: the same inputs, the largest difference between what
-- they give, relative to the largest number among the cpu's results (a gradient may be a small difference of large
-- terms). devices_spec.lua runs it as
--   PERIGEE_CUDA=emulated luajit spec/devices/compare.lua cuda [plant]
-- Prints a line for each case that differs, and "N cases, M differ, K refused on both". plant: an op that gives
-- something else on the device is put among them.

package.path = "./lua/?.lua;./lua/?/init.lua;./?.lua;" .. package.path

local pg = require "perigee"
local every_op = require "spec.support.every_op"
local random_cases = require "spec.devices.random_cases"

local device = arg[1]

-- Of that number: what a few roundings in another order leave, and for the halves one rounding more. Five steps of
-- training divide small gradients by their own size: ten times as much.
local TOLERANCES = { float64 = 1e-11, float32 = 2e-5, float16 = 4e-3, bfloat16 = 3e-2 }
local LOOSE = { ["a training run of a GPT"] = 10 }

local VARIANTS = {
    { name = "float64 samples, and large float32 tensors" },
    { name = "elements apart", spread = true },
    { name = "float32", dtype = pg.float32 },
    { name = "float16", dtype = pg.float16 },
    { name = "bfloat16", dtype = pg.bfloat16, spread = true },
    { name = "int64", dtype = pg.int64 },
    { name = "int32", dtype = pg.int32, spread = true },
    { name = "uint8", dtype = pg.uint8 },
    { name = "bool", dtype = pg.bool },
}

local function finite(x)
    return x - x == 0
end

local function largest_of(x)
    if x:numel() == 0 or not x:is_floating_point() then return 0 end
    local a = x:detach():reshape(-1):to(pg.float64)
    return pg.where(a:isfinite(), a:abs(), 0):max():item()
end

--- The largest difference, as a part of `size`; and a text where the two cannot be compared.
local function difference(x, y, size)
    if x.dtype ~= y.dtype then return nil, ("dtypes %s and %s"):format(x.dtype, y.dtype) end
    if x.shape ~= y.shape then return nil, ("shapes %s and %s"):format(x.shape, y.shape) end
    if x:numel() == 0 then return 0 end
    local exact = not x:is_floating_point()
    local a, b = x:detach():reshape(-1):to(pg.float64), y:detach():to("cpu"):reshape(-1):to(pg.float64)
    local same = a:eq(b):logical_or(a:isnan():logical_and(b:isnan()))
    if same:all():item() then return 0 end
    if exact then return nil, "exact results differ" end
    local gap = pg.where(same, 0, (a - b):abs())
    local worst = gap:max():item()
    if not finite(worst) then return nil, "one is finite, the other is not" end
    return worst / math.max(size, 1e-30)
end

local cases, differ, refused = 0, 0, 0
local largest = {}

local function compare(variant, here, there)
    cases = cases + 1
    -- a result in float64 of inputs in float32 is no better than these
    local least = variant.dtype and TOLERANCES[tostring(variant.dtype):match "%w+$"] or 0
    local expected, actual = { pcall(here.run) }, { pcall(there.run) }
    local function wrong(...)
        differ = differ + 1
        print(("DIFFERS (%s) %s: %s"):format(variant.name, here.name, (...):format(select(2, ...))))
    end
    if not expected[1] or not actual[1] then
        if expected[1] ~= actual[1] then
            wrong("%s says: %s", expected[1] and device or "cpu", tostring(expected[1] and actual[2] or expected[2]))
        else
            refused = refused + 1
        end
        return
    end
    local size = 0
    for k = 2, #expected do size = math.max(size, largest_of(expected[k])) end
    local loose = LOOSE[here.name] or 1
    for k = 2, math.max(#expected, #actual) do
        local x, y = expected[k], actual[k]
        if (x == nil) ~= (y == nil) then return wrong("result %d is there on one alone", k - 1) end
        if x ~= nil then
            local d, problem = difference(x, y, size)
            local dtype = tostring(x.dtype):match("%w+$")
            if problem then return wrong("result %d: %s", k - 1, problem) end
            if d > math.max(TOLERANCES[dtype] or 0, least) * loose then
                return wrong("result %d (%s): largest difference %.3g of the largest number", k - 1, dtype, d)
            end
            if loose == 1 and least <= (TOLERANCES[dtype] or 0) and d >= (largest[dtype] and largest[dtype].d or 0) then
                largest[dtype] = { d = d, name = here.name }
            end
        end
    end
end

for _, variant in ipairs(VARIANTS) do
    local here, missing = every_op("cpu", variant)
    local there = every_op(device, variant)
    for _, symbol in ipairs(missing) do print("NO CASE for " .. symbol) end
    local by_name = {}
    for _, case in ipairs(there) do by_name[case.name] = case end
    for _, case in ipairs(here) do
        local other = by_name[case.name] or { run = function() error("no such case there") end }
        compare(variant, case, other)
    end
end

-- Another seed gives other shapes: PERIGEE_SPEC_SEED.
local RANDOM, SEED = 1500, tonumber(os.getenv "PERIGEE_SPEC_SEED") or 1
local here, there = random_cases("cpu", RANDOM, SEED), random_cases(device, RANDOM, SEED)
for k = 1, RANDOM do compare({ name = "random" }, here[k], there[k]) end

if arg[2] == "plant" then
    compare({ name = "planted" }, { name = "planted", run = function() return pg.ones(3) end },
        { name = "planted", run = function() return pg.ones(3, { device = device }) * 1.001 end })
end

for dtype, tolerance in pairs(TOLERANCES) do
    local l = largest[dtype]
    print(("%-8s largest difference %.3g (up to %.3g): %s"):format(dtype, l and l.d or 0, tolerance,
        l and l.name or "-"))
end
print(("%d cases, %d differ, %d refused on both"):format(cases, differ, refused))
