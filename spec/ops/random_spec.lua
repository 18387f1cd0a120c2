local pg = require "perigee"
local numbers = require "spec.support.numbers"
local shell = require "spec.build.shell"

local F = pg.nn.functional
local close, flat, refuses = numbers.close, numbers.flat, numbers.refuses

-- Philox4x32-10 in plain Lua, for comparison: products of 32-bit words from 16-bit halves.
local bit = require "bit"
local function product(a, b)
    local al, ah, bl, bh = a % 65536, math.floor(a / 65536), b % 65536, math.floor(b / 65536)
    local low, m1, m2 = al * bl, ah * bl, al * bh
    local middle = math.floor(low / 65536) + m1 % 65536 + m2 % 65536
    return ah * bh + math.floor(m1 / 65536) + math.floor(m2 / 65536) + math.floor(middle / 65536),
        (middle % 65536) * 65536 + low % 65536
end
local function xor(...) return bit.bxor(...) % 2 ^ 32 end
local function philox(seed, counter)
    local a, b, c, d, k, l = counter, 0, 0, 0, seed, 0
    for _ = 1, 10 do
        local ph, pl = product(a, 0xd2511f53)
        local qh, ql = product(c, 0xcd9e8d57)
        a, b, c, d = xor(qh, b, k), ql, xor(ph, d, l), pl
        k, l = (k + 0x9e3779b9) % 2 ^ 32, (l + 0xbb67ae85) % 2 ^ 32
    end
    return a, b, c, d
end

local function moments(t)
    local x = t:to(pg.float64)
    local mean = x:mean():item()
    local c = x - mean
    local var = (c * c):mean():item()
    return mean, var, (c ^ 3):mean():item() / var ^ 1.5, (c ^ 4):mean():item() / var ^ 2
end

describe("random draws", function()
    it("know the published answer", function()
        local a, b, c, d = philox(0, 0)
        assert.are.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, { a, b, c, d })
    end)

    it("are the generator's words: counter i / 4, lane i % 4, 24 bits of each", function()
        pg.manual_seed(42)
        local got = pg.rand(600):totable()
        for i = 0, 599, 37 do
            local words = { philox(42, math.floor(i / 4)) }
            assert.are.equal(math.floor(words[i % 4 + 1] / 256) / 2 ^ 24, got[i + 1])
        end
        -- the next draw begins where this one ended
        assert.are.equal(math.floor(philox(42, 150) / 256) / 2 ^ 24, pg.rand(1)[0]:item())
    end)

    it("have these bits, on every machine", function()
        pg.manual_seed(42)
        close(pg.rand(6), pg.tensor { 0.61295986175537109, 0.4685865044593811, 0.073231697082519531,
            0.34086149930953979,
            0.98771864175796509, 0.32706332206726074 }, 0)
        close(pg.randn(6), pg.tensor { -0.33696189522743225, -0.51874876022338867, 0.14856696128845215,
            -0.99521529674530029,
            -0.37973728775978088, -0.69736599922180176 }, 0)
        close(pg.randn(5, { dtype = pg.float64 }), pg.float64 { 0.053085029997585305, 0.59005320946049655,
            1.5151875889319921,
            0.39519718455994579, 0.31706963178507952 }, 0)
        close(pg.rand(3, { dtype = pg.float64 }), pg.float64 { 0.40808561569041579, 0.18132720680216741,
            0.13436197013315021 }, 0)
        assert.are.same({ 2, 3, 7, 4, 5, 6, 3, 6 }, pg.randint(0, 10, { 8 }):totable())
        assert.are.same({ 480422625616, 485980710975, 190100853341 }, pg.randint(-5, 2 ^ 40, { 3 }):totable())
        assert.are.same({ 1, 6, 5, 4, 3, 0, 2, 7 }, pg.randperm(8):totable())
        close(pg.randn(5, { dtype = pg.float16 }):to(pg.float64),
            pg.float64 { -2.12109375, 0.41357421875, -0.69775390625, 0.348876953125, 0.78662109375 }, 0)
        close(pg.rand(5, { dtype = pg.bfloat16 }):to(pg.float64),
            pg.float64 { 0.32421875, 0.15625, 0.94921875, 0.859375, 0.33984375 }, 0)
        assert.are.same({ 0, 0, 0, 1, 0, 0, 0, 1 }, pg.zeros(8):bernoulli_(0.3):totable())
    end)

    it("are the same at every thread count, and whatever the strides", function()
        numbers.same_at_every_thread_count(function()
            pg.manual_seed(5)
            return { pg.randn(70001), pg.rand(70001, { dtype = pg.float64 }), pg.randint(0, 1000, { 70001 }),
                pg.randperm(5000),
                F.dropout(pg.ones(70001), 0.3), pg.zeros(70001):bernoulli_(0.4) }
        end)
        pg.manual_seed(9)
        local dense = pg.zeros(6, 7):normal_()
        pg.manual_seed(9)
        local turned = pg.zeros(7, 6):t():normal_()
        close(turned, dense, 0)
    end)

    -- a property of the numbers, which are the same under the race checker, where a million of them take minutes
    if not shell.watches_races then
        it("have the moments that they should", function()
            pg.manual_seed(1)
            for _, dtype in ipairs { pg.float32, pg.float64, pg.float16, pg.bfloat16 } do
                local mean, var, skew, kurtosis = moments(pg.randn(200000, { dtype = dtype }))
                assert.is_true(math.abs(mean) < 0.01 and math.abs(var - 1) < 0.02 and math.abs(skew) < 0.03)
                assert.is_true(math.abs(kurtosis - 3) < 0.08)
                local u = pg.rand(200000, { dtype = dtype })
                mean, var = moments(u)
                assert.is_true(math.abs(mean - 0.5) < 0.006 and math.abs(var - 1 / 12) < 0.002)
                assert.is_true(u:amin():item() >= 0 and u:amax():item() < 1)
            end
            local mean, var = moments(pg.zeros(100000):normal_(10, 2))
            assert.is_true(math.abs(mean - 10) < 0.03 and math.abs(var - 4) < 0.08)
            local far = pg.randn(4 * 2 ^ 20):abs()
            assert.is_true(far:max():item() > 4.5 and far:max():item() < 6.7)
        end)
    end

    it("spread integers evenly", function()
        pg.manual_seed(2)
        local counts = {}
        for _, v in ipairs(pg.randint(-3, 4, { 70000 }):totable()) do counts[v] = (counts[v] or 0) + 1 end
        for v = -3, 3 do assert.is_true(math.abs(counts[v] - 10000) < 400) end
        assert.is_nil(counts[4])
        local order = pg.randperm(1000)
        assert.is_true(pg.equal((order:sort()), pg.arange(1000)))
        assert.is_false(pg.equal(order, pg.arange(1000)))
        assert.are.equal(pg.int32, pg.randint(0, 5, { 2 }, { dtype = pg.int32 }).dtype)
        refuses("randint", function() return pg.randint(5, 5, { 2 }) end)
        refuses("randperm", function() return pg.randperm(-1) end)
    end)

    it("draw with the given chances", function()
        pg.manual_seed(3)
        local p = pg.tensor { 0, 0.25, 1 }:expand(20000, 3)
        local rate = p:bernoulli():mean(0):totable()
        assert.are.equal(0, rate[1])
        assert.is_true(math.abs(rate[2] - 0.25) < 0.015)
        assert.are.equal(1, rate[3])
        local w = pg.tensor { 1, 0, 3, 6 }
        local drawn = pg.multinomial(w, 20000, true)
        local counts = F.one_hot(drawn, 4):to(pg.float64):mean(0):totable()
        assert.are.equal(0, counts[2])
        assert.is_true(math.abs(counts[1] - 0.1) < 0.01 and math.abs(counts[3] - 0.3) < 0.015)
        for _ = 1, 20 do
            local three = pg.multinomial(w, 3):sort():totable()
            assert.are.same({ 0, 2, 3 }, three)
        end
        assert.are.same({ 5, 2 }, { unpack(pg.multinomial(pg.rand(5, 4), 2).shape) })
        refuses("multinomial", function() return pg.multinomial(pg.tensor { 0, 0 }, 1) end)
        refuses("multinomial", function() return pg.multinomial(pg.tensor { 0.5, -0.5 }, 1) end)
        refuses("multinomial", function() return pg.multinomial(pg.tensor { 0.5, 0.5 }, 3) end)
        refuses("bernoulli", function() return pg.tensor { 1.5 }:bernoulli() end)
    end)

    it("drop with the given chance and scale what stays", function()
        pg.manual_seed(4)
        local y = F.dropout(pg.ones(100000), 0.2)
        local kept = y:gt(0):to(pg.float64):mean():item()
        assert.is_true(math.abs(kept - 0.8) < 0.006)
        assert.are.equal(1.25, y:max():item())
        assert.are.equal(0, F.dropout(pg.ones(10), 1):sum():item())
        close(F.dropout(pg.ones(10), 0), pg.ones(10), 0)
        close(F.dropout(pg.ones(10), 0.5, false), pg.ones(10), 0)
    end)

    it("go on from a saved state", function()
        pg.manual_seed(11)
        pg.randn(7)
        local device = pg.get_default_device()
        local state = pg.get_rng_state(device)
        local first = pg.randn(5)
        pg.set_rng_state(state, device)
        close(pg.randn(5), first, 0)
        pg.manual_seed(11)
        assert.is_false(pg.equal(pg.randn(5), first))
        assert.are.equal(5, #flat(first))
    end)

    it("refuse other dtypes and parameters", function()
        refuses("rand", function() return pg.rand(2, { dtype = pg.int64 }) end)
        refuses("normal_", function() return pg.zeros(2):normal_(0, -1) end)
        refuses("uniform_", function() return pg.zeros(2):uniform_(1, 0) end)
        refuses("leaf", function() return pg.zeros(2, { requires_grad = true }):normal_() end)
    end)
end)
