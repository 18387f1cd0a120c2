local pg = require "perigee"
local numbers = require "spec.support.numbers"
local shell = require "spec.build.shell"

local F = pg.nn.functional
local random, close, flat, refuses = numbers.random, numbers.close, numbers.flat, numbers.refuses
local INF, NAN = math.huge, 0 / 0

local FLOATS = { pg.float32, pg.float64, pg.float16, pg.bfloat16 }
local INTEGERS = { pg.int64, pg.int32, pg.int16, pg.int8, pg.uint8 }
-- Half the spacing at 1, with room for a polynomial.
local TOLERANCE = { float32 = 4e-7, float64 = 1e-15, float16 = 1e-3, bfloat16 = 8e-3 }
local function tolerance(dtype) return TOLERANCE[tostring(dtype):match "(%w+)$"] end

-- Layouts of one tensor: as it is, transposed, with gaps, flipped.
local function layouts(x)
    local n = #x.shape
    local wide = pg.zeros({ unpack(x.shape) }, { dtype = x.dtype }):unsqueeze(-1):repeat_interleave(3, n)
    local gaps = wide:select(n, 1)
    gaps:copy_(x)
    return { x, x:transpose(0, n - 1):contiguous():transpose(0, n - 1), gaps, x:flip(0):flip(0) }
end

local function lua_erf(x)
    local sum, term = x, x
    for k = 1, 120 do
        term = -term * x * x / k
        sum = sum + term / (2 * k + 1)
    end
    return sum * 2 / math.sqrt(math.pi)
end

local FUNCTIONS = {
    exp = math.exp, expm1 = function(x) return math.exp(x) - 1 end, exp2 = function(x) return 2 ^ x end,
    sin = math.sin, cos = math.cos, tan = math.tan, sinh = math.sinh, cosh = math.cosh, tanh = math.tanh,
    sigmoid = function(x) return 1 / (1 + math.exp(-x)) end, erf = lua_erf,
    abs = math.abs, neg = function(x) return -x end, square = function(x) return x * x end,
    floor = math.floor, ceil = math.ceil, reciprocal = function(x) return 1 / x end,
    trunc = function(x) return x < 0 and math.ceil(x) or math.floor(x) end,
    relu = function(x) return math.max(x, 0) end, sign = function(x) return x > 0 and 1 or x < 0 and -1 or 0 end,
}
-- Near a pole; where the series above cancels.
local LOOSE = { tan = 100, erf = 1e4 }
local OF_POSITIVE = {
    log = math.log, log1p = function(x) return math.log(1 + x) end,
        log2 = function(x) return math.log(x) / math.log(2) end,
    log10 = math.log10, sqrt = math.sqrt, rsqrt = function(x) return 1 / math.sqrt(x) end,
}

describe("pointwise ops", function()
    for name, f in pairs(FUNCTIONS) do
        it(name .. " is what Lua computes, in every dtype, size and layout", function()
            for _, dtype in ipairs(FLOATS) do
                for _, n in ipairs { 1, 7, 300 } do
                    local x = (random({ 2, n }, { dtype = pg.float64 }) * 3):to(dtype)
                    local expected = {}
                    for k, v in ipairs(flat(x)) do expected[k] = f(v) end
                    expected = pg.tensor(expected, { dtype = pg.float64 }):reshape(2, n)
                    for _, y in ipairs(layouts(x)) do
                        close(y[name](y):to(pg.float64), expected, (LOOSE[name] or 8) * tolerance(dtype))
                    end
                end
            end
        end)
    end

    for name, f in pairs(OF_POSITIVE) do
        it(name .. " is what Lua computes", function()
            for _, dtype in ipairs(FLOATS) do
                local x = (random({ 300 }, { dtype = pg.float64 }):abs() * 9 + 0.05):to(dtype)
                local expected = {}
                for k, v in ipairs(flat(x)) do expected[k] = f(v) end
                close(x[name](x):to(pg.float64), pg.tensor(expected, { dtype = pg.float64 }), 8 * tolerance(dtype))
            end
        end)
    end

    it("round to even, also to decimals", function()
        assert.are.same({ -2, 0, 0, 2, 2, 4 }, pg.tensor { -2.5, -0.5, 0.5, 1.5, 2.5, 3.5 }:round():totable())
        close(pg.float64 { 0.125, 2.675, -14.5 }:round({ decimals = 2 }), pg.float64 { 0.12, 2.68, -14.5 }, 1e-12)
        close(pg.float64 { 1234, 1250 }:round({ decimals = -2 }), pg.float64 { 1200, 1200 }, 0)
    end)

    it("reach every exponent", function()
        local x = pg.float32 { 1e-45, 1e-40, 1e-38, 1e-20, 1, 1e20, 3.4e38 }
        close(x:log(), pg.float32 {
            -103.2789299, -92.10340357, -87.49823353, -46.05170186, 0, 46.05170186, 88.72200784,
        }, 2e-7)
        close(x:sqrt() * x:sqrt(), x, 1e-6)
        assert.are.same({ 0, INF, 1, INF }, pg.tensor { -104, 89, 0, INF }:exp():totable())
        assert.are.equal(-1, pg.tensor(-1000):expm1():item())
        local big = pg.tensor { 1e6, 1e7, 1e20, -3e30 }
        for k, v in ipairs(flat(big)) do
            assert.is_true(math.abs(flat(big:sin())[k] - math.sin(v)) < 1e-6)
            assert.is_true(math.abs(flat(big:cos())[k] - math.cos(v)) < 1e-6)
        end
    end)

    it("pass NaN and infinities on", function()
        for _, name in ipairs { "exp", "log", "tanh", "sigmoid", "erf", "sin", "relu", "floor", "abs", "expm1",
            "log1p" } do
            local v = pg.tensor { 1, NAN }[name](pg.tensor { 1, NAN })[1]:item()
            assert.is_true(v ~= v, name)
        end
        assert.are.same({ 1, -1 }, pg.tensor { INF, -INF }:tanh():totable())
        assert.are.same({ -INF, INF }, pg.tensor { 0, INF }:log():totable())
        local both = pg.tensor { NAN, 1 }:maximum(pg.tensor { 1, NAN }):totable()
        assert.is_true(both[1] ~= both[1] and both[2] ~= both[2])
        assert.are.same({ true, false, false }, pg.tensor { NAN, INF, 1 }:isnan():totable())
        assert.are.same({ false, true, false }, pg.tensor { NAN, -INF, 1 }:isinf():totable())
        assert.are.same({ false, false, true }, pg.tensor { NAN, INF, 1 }:isfinite():totable())
    end)

    it("broadcast in every layout", function()
        local a, b = random({ 5, 1, 70 }), random({ 3, 1 })
        local x, y = a:totable(), b:totable()
        local sums, products = {}, {}
        for i = 1, 5 do
            for j = 1, 3 do
                for k = 1, 70 do
                    sums[#sums + 1] = x[i][1][k] + y[j][1]
                    products[#products + 1] = x[i][1][k] * y[j][1]
                end
            end
        end
        for _, c in ipairs(layouts(a)) do
            close(c + b, pg.tensor(sums):reshape(5, 3, 70), 1e-7)
            close(b * c, pg.tensor(products):reshape(5, 3, 70), 1e-7)
        end
        refuses("do not broadcast: [2, 3] and [2]", function() return pg.ones(2, 3) + pg.ones(2) end)
    end)

    it("agree with themselves on large tensors, whose parts are cut and streamed differently", function()
        local n = shell.watches_races and 3 * 2 ^ 16 + 5 or 3 * 2 ^ 21 + 5
        local x = pg.arange(n):remainder(1001):to(pg.float32)
        local y = x * 2 + 1
        assert.are.equal(0, (y - 1 - x - x):abs():max():item())
        for _, at in ipairs { 0, 1, 511, 512, (n - 5) / 6 + 3, n - 1 } do
            assert.are.equal((at % 1001) * 2 + 1, y[at]:item())
        end
        numbers.same_at_every_thread_count(function() return { y:sin():sum(), (x + y):sqrt():sum() } end)
    end)

    it("keep integers exact, and wrap", function()
        for _, dtype in ipairs(INTEGERS) do
            local a, b = pg.tensor({ 7, 100, 3, 0 }, { dtype = dtype }), pg.tensor({ 2, 3, 5, 9 }, { dtype = dtype })
            assert.are.same({ 9, 103, 8, 9 }, (a + b):totable())
            assert.are.equal(dtype, (a * b).dtype)
            assert.are.same({ 3, 33, 0, 0 }, a:floor_divide(b):totable())
            assert.are.same({ 1, 1, 3, 0 }, (a % b):totable())
            assert.are.same({ 2, 3, 3, 0 }, a:minimum(b):totable())
            assert.are.same({ true, true, false, false }, a:gt(b):totable())
            assert.are.equal(pg.float32, (a / b).dtype)
        end
        assert.are.same({ -128 }, (pg.int8 { 127 } + 1):totable())
        assert.are.same({ 255 }, (pg.uint8 { 0 } - 1):totable())
        assert.are.same({ 10 ^ 12 }, (pg.int64 { 10 ^ 6 } ^ 2):totable())
        assert.are.equal(pg.int64, (pg.int64 { 1 } + 1).dtype)
        assert.are.equal(pg.float32, (pg.int64 { 1 } * 0.5).dtype)
        assert.are.same({ 5, 7, 2 }, { pg.int64 { 5 }:bitwise_and(7):item(), pg.int64 { 5 }:bitwise_or(2):item(),
            pg.int64 { 5 }:bitwise_xor(7):item() })
        assert.are.same({ false, true }, pg.bool { true, false }:bitwise_not():totable())
    end)

    it("divide as Python does", function()
        local a, b = pg.int64 { 7, -7, 7, -7 }, pg.int64 { 2, 2, -2, -2 }
        assert.are.same({ 3, -4, -4, 3 }, a:floor_divide(b):totable())
        assert.are.same({ 1, 1, -1, -1 }, a:remainder(b):totable())
        assert.are.same({ 1, -1, 1, -1 }, a:fmod(b):totable())
        assert.are.same({ 3, -3, -3, 3 }, a:div(b, { rounding_mode = "trunc" }):totable())
        local x, y = a:to(pg.float64) + 0.5, b:to(pg.float64)
        assert.are.same({ 3, -4, -4, 3 }, x:floor_divide(y):totable())
        assert.are.same({ 1.5, 1.5, -0.5, -0.5 }, x:remainder(y):totable())
    end)

    it("divide integers by zero with an error, by minus one without", function()
        refuses("floor_divide: integer division by zero", function()
            return pg.int64 { 1, 2 }:floor_divide(pg.int64 { 1, 0 })
        end)
        refuses("remainder: integer division by zero", function() return pg.int32 { 1 } % 0 end)
        refuses("fmod: integer division by zero", function() return pg.int8 { 1 }:fmod(0) end)
        local least = pg.full({ 1 }, 1, { dtype = pg.int64 }) * -0x7fffffffffffffffLL - 1
        assert.are.equal("-9223372036854775808LL", tostring(least:floor_divide(-1):item()))
        assert.are.equal(0, least:remainder(-1):item())
        assert.are.equal(INF, pg.tensor { 1 }:floor_divide(0):item())
    end)

    it("raise to powers", function()
        local x = pg.float64 { -2, -0.5, 0, 0.5, 3 }
        for _, e in ipairs { 0, 1, 2, 3, 5, -1, -2 } do
            local expected = {}
            for k, v in ipairs(x:totable()) do expected[k] = v ^ e end
            close(x ^ e, pg.float64(expected), 1e-14)
            close((x:to(pg.float32) ^ e):to(pg.float64), pg.float64(expected), 1e-6)
            close(x ^ pg.full({ 5 }, e, { dtype = pg.float64 }), pg.float64(expected), 1e-14)
        end
        close(2 ^ x, pg.float64 { 0.25, 2 ^ -0.5, 1, 2 ^ 0.5, 8 }, 1e-14)
        local y = pg.tensor { -8 } ^ 0.3
        assert.is_true(y:item() ~= y:item())
        refuses("pow: integers to negative integer powers are not allowed", function() return pg.int64 { 2 } ^ -1 end)
    end)

    it("take numbers on both sides of operators", function()
        local x = pg.float64 { 1, 2, 4 }
        assert.are.same({ 9, 8, 6 }, (10 - x):totable())
        assert.are.same({ 1, 0.5, 0.25 }, (1 / x):totable())
        assert.are.same({ -1, -2, -4 }, (-x):totable())
        assert.are.same({ 5, 3, -1 }, x:rsub(7, { alpha = 2 }):totable())
        assert.are.same({ 2.5, 3.5, 5.5 }, x:add(pg.float64 { 3, 3, 3 }, { alpha = 0.5 }):totable())
    end)

    it("choose and limit", function()
        local x = pg.tensor { -2, -0.5, 0.5, NAN }
        assert.are.same({ -1, -0.5, 0.5 }, { unpack(x:clamp(-1, 1):totable(), 1, 3) })
        assert.is_true(x:clamp(-1, 1)[3]:item() ~= x:clamp(-1, 1)[3]:item())
        assert.are.same({ 1, 1, 1 }, { unpack(x:clamp(2, 1):totable(), 1, 3) })
        assert.are.same({ 1, 0 }, pg.tensor { 0, 3 }:clamp(pg.tensor { 1, -1 }, pg.tensor { 2, 0 }):totable())
        assert.are.equal(pg.float32, pg.int64 { 1 }:clamp(0.5).dtype)
        assert.are.same({ 1, 20, 3 }, pg.where(pg.bool { true, false, true }, pg.int64 { 1, 2, 3 },
            pg.int64 { 10, 20, 30 }):totable())
        assert.are.same({ 1, 0 }, pg.tensor { 1, 2 }:where(pg.bool { true, false }, 0):totable())
        refuses("where: expected condition to be a bool tensor, got int64", function()
            return pg.where(pg.int64 { 1 }, pg.ones(1), pg.ones(1))
        end)
        refuses("clamp: at least one of min and max must not be nil", function() return x:clamp() end)
    end)

    it("compare", function()
        assert.is_true(pg.allclose(pg.tensor { 1, INF }, pg.tensor { 1 + 1e-6, INF }))
        assert.is_false(pg.allclose(pg.tensor { 1 }, pg.tensor { 1.1 }))
        assert.is_false(pg.allclose(pg.tensor { NAN }, pg.tensor { NAN }))
        assert.is_true(pg.allclose(pg.tensor { NAN }, pg.tensor { NAN }, { equal_nan = true }))
        assert.are.same({ true, false }, pg.tensor { 1, 2 }:isclose(pg.tensor { 1, 3 }):totable())
        assert.is_true(pg.equal(pg.int64 { 1, 2 }, pg.int64 { 1, 2 }))
        assert.is_false(pg.equal(pg.int64 { 1, 2 }, pg.int64 { { 1, 2 } }))
        assert.are.same({ true, false, true }, pg.int64 { 1, 2, 3 }:ne(2):totable())
    end)

    it("write in place and into out", function()
        local x = pg.tensor { 1, 4, 9 }
        local same = x:sqrt_()
        assert.are.equal(x.id, same.id)
        assert.are.same({ 1, 2, 3 }, x:totable())
        x:mul_(2):add_(1):clamp_({ max = 6 })
        assert.are.same({ 3, 5, 6 }, x:totable())
        local out = pg.empty(3)
        pg.exp(pg.zeros(3), { out = out })
        assert.are.same({ 1, 1, 1 }, out:totable())
        refuses("sqrt_: result type float32 can't be cast to the desired output type int64", function()
            pg.int64 { 1 }:sqrt_()
        end)
    end)

    it("refuse what makes no sense", function()
        refuses("neg: negation of a bool tensor is not supported", function() return -pg.bool { true } end)
        refuses("sub: subtraction of two bool tensors is not supported", function()
            return pg.bool { true } - pg.bool { true }
        end)
        refuses("add: for integral input tensors, alpha must not be a floating point number", function()
            return pg.int64 { 1 }:add(1, { alpha = 0.5 })
        end)
        refuses("bitwise_and: expected integers or bools, got float32", function()
            return pg.ones(1):bitwise_and(1)
        end)
        refuses("lerp: expected one dtype, got float32, float64", function()
            return pg.ones(1):lerp(pg.ones(1, { dtype = pg.float64 }), 0.5)
        end)
        refuses("gelu: expected a floating-point tensor, got int64", function() return F.gelu(pg.int64 { 1 }) end)
    end)
end)

describe("activations", function()
    local x = random({ 400 }, { dtype = pg.float64 }) * 8
    local CASES = {
        gelu = function(v) return v * 0.5 * (1 + lua_erf(v / math.sqrt(2))) end,
        silu = function(v) return v / (1 + math.exp(-v)) end,
        softplus = function(v) return math.log(1 + math.exp(v)) end,
        leaky_relu = function(v) return v > 0 and v or 0.01 * v end,
        logsigmoid = function(v) return -math.log(1 + math.exp(-v)) end,
        elu = function(v) return v > 0 and v or math.exp(v) - 1 end,
        relu6 = function(v) return math.min(math.max(v, 0), 6) end,
        hardtanh = function(v) return math.min(math.max(v, -1), 1) end,
    }
    for name, f in pairs(CASES) do
        it(name, function()
            local within = name == "gelu" and x * 0.5 or x          -- the series for erf loses digits far out
            local expected = {}
            for k, v in ipairs(within:totable()) do expected[k] = f(v) end
            expected = pg.float64(expected)
            close(F[name](within), expected, 1e-12)
            close(F[name](within:to(pg.float32)):to(pg.float64), expected, 2e-6)
            close(F[name](within:to(pg.bfloat16)):to(pg.float64), expected, 0.05)
        end)
    end

    it("gelu by tanh", function()
        local expected = {}
        for k, v in ipairs(x:totable()) do
            expected[k] = 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ^ 3)))
        end
        close(F.gelu(x, "tanh"), pg.float64(expected), 1e-12)
        close(F.gelu(x:to(pg.float32), { approximate = "tanh" }):to(pg.float64), pg.float64(expected), 1e-6)
        refuses("gelu", function() return F.gelu(x, "exact") end)
    end)

    it("softplus stays linear beyond its threshold", function()
        assert.are.same({ 30, 3 }, F.softplus(pg.float64 { 30, 3 }, 2, 5):totable())
    end)

    it("relu is zero for negatives and keeps integers", function()
        assert.are.same({ 0, 0, 3 }, pg.int64 { -2, 0, 3 }:relu():totable())
    end)
end)
