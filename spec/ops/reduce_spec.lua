local pg = require "perigee"
local numbers = require "spec.support.numbers"

local random, close, refuses, same_at_every_thread_count = numbers.random, numbers.close, numbers.refuses,
    numbers.same_at_every_thread_count
local INF, NAN = math.huge, 0 / 0

-- Reductions of a list, in plain Lua.
local LISTS = {
    sum = function(l) local s = 0 for _, v in ipairs(l) do s = s + v end return s end,
    mean = function(l) local s = 0 for _, v in ipairs(l) do s = s + v end return s / #l end,
    prod = function(l) local s = 1 for _, v in ipairs(l) do s = s * v end return s end,
    amax = function(l) return math.max(unpack(l)) end,
    amin = function(l) return math.min(unpack(l)) end,
    var = function(l)
        local mean, s = 0, 0
        for _, v in ipairs(l) do mean = mean + v / #l end
        for _, v in ipairs(l) do s = s + (v - mean) ^ 2 end
        return s / (#l - 1)
    end,
    norm = function(l) local s = 0 for _, v in ipairs(l) do s = s + v * v end return math.sqrt(s) end,
    logsumexp = function(l) local s = 0 for _, v in ipairs(l) do s = s + math.exp(v) end return math.log(s) end,
}
LISTS.std = function(l) return math.sqrt(LISTS.var(l)) end

-- The reduction of a three-dimensional tensor over dims, element by element.
local function reduced(x, f, dims)
    local values, shape, gone = x:totable(), { unpack(x.shape) }, {}
    for _, d in ipairs(dims) do gone[d] = true end
    local lists, kept = {}, {}
    for i = 1, shape[1] do
        for j = 1, shape[2] do
            for k = 1, shape[3] do
                local at = { i, j, k }
                local place = 0
                for d = 0, 2 do
                    if not gone[d] then place = place * shape[d + 1] + at[d + 1] - 1 end
                end
                lists[place + 1] = lists[place + 1] or {}
                table.insert(lists[place + 1], values[i][j][k])
            end
        end
    end
    for d = 0, 2 do
        if not gone[d] then kept[#kept + 1] = shape[d + 1] end
    end
    local out = {}
    for place, list in ipairs(lists) do out[place] = f(list) end
    return pg.tensor(out, { dtype = pg.float64 }):reshape(kept)
end

local DIMS = { { 0 }, { 1 }, { 2 }, { 0, 1 }, { 0, 2 }, { 1, 2 }, { 0, 1, 2 } }

describe("reductions", function()
    for name, f in pairs(LISTS) do
        it(name .. " over any dimensions of any layout", function()
            local base = random({ 5, 9, 70 }, { dtype = pg.float64 })
            if name == "prod" then base = base * 0.2 + 1 end
            for _, x in ipairs { base, base:transpose(0, 2), base:permute(1, 2, 0), base:flip(1),
                base[{ {}, { 0, 9, 2 }, { 3, 60, 3 } }] } do
                for _, dims in ipairs(DIMS) do
                    if name ~= "prod" then
                        local expected = reduced(x, f, dims)
                        close(x[name](x, { dim = dims }), expected, 1e-11)
                        close(x:to(pg.float32)[name](x:to(pg.float32), { dim = dims }):to(pg.float64), expected, 2e-5)
                    elseif #dims == 1 then
                        close(x:prod(dims[1]), reduced(x, f, dims), 1e-11)
                    end
                end
            end
            if name == "prod" then close(base[0]:prod(), pg.tensor(f(numbers.flat(base[0])),
                { dtype = pg.float64 }), 1e-11) end
        end)
    end

    it("keep dimensions of one where asked", function()
        local x = pg.ones(2, 3, 4)
        assert.are.same({ 2, 1, 4 }, { unpack(x:sum(1, true).shape) })
        assert.are.same({ 1, 1, 1 }, { unpack(x:amax({ keepdim = true }).shape) })
        assert.are.same({ 4 }, { unpack(x:mean({ 0, 1 }).shape) })
        assert.are.equal(24, x:sum():item())
        assert.are.equal(0, #{ unpack(x:sum().shape) })
    end)

    it("sum millions of float32 to the last digits", function()
        local x = pg.full({ 3 * 2 ^ 20 + 1 }, 0.1)
        local exact = (3 * 2 ^ 20 + 1) * pg.tensor(0.1):item()
        assert.is_true(math.abs(x:sum():item() / exact - 1) < 2e-7)
        assert.is_true(math.abs(x:mean():item() - 0.1) < 2e-8)
        local columns = pg.full({ 200000, 3 }, 0.1):sum(0):totable()
        for _, v in ipairs(columns) do assert.is_true(math.abs(v / (200000 * pg.tensor(0.1):item()) - 1) < 1e-6) end
        assert.is_true(pg.full({ 4096 }, 1 / 3, { dtype = pg.bfloat16 }):sum():item() > 1300)
    end)

    it("find variances without cancellation", function()
        local x = pg.tensor { 1e4, 1e4 + 1, 1e4 + 2, 1e4 + 3 }
        assert.is_true(math.abs(x:var():item() - 5 / 3) < 1e-5)
        assert.is_true(math.abs(x:var({ unbiased = false }):item() - 1.25) < 1e-5)
        assert.is_true(math.abs(x:std({ correction = 2 }):item() - math.sqrt(2.5)) < 1e-5)
        assert.is_true(math.abs((pg.arange(100000):to(pg.float32) + 1e6):var():item() / 833341666.7 - 1) < 1e-4)
        local one = pg.tensor { 3 }:var():item()
        assert.is_true(one ~= one)
    end)

    it("let NaN win, and give the first of equals", function()
        local x = pg.tensor { { 1, NAN, 2 }, { 3, 3, 1 }, { -INF, -INF, -INF } }
        local values, indices = x:max(1)
        assert.is_true(values[0]:item() ~= values[0]:item())
        assert.are.same({ 1, 0, 0 }, indices:totable())
        assert.are.same({ 3, -INF }, { values[1]:item(), values[2]:item() })
        assert.are.same({ 1, 2, 0 }, x:argmin(1):totable())
        assert.are.same({ 1, 0, 0 }, x:argmax(1):totable())
        assert.are.equal(1, x:argmax():item())
        local long = pg.zeros(5000)
        long[4097] = 1
        long[4500] = 1
        assert.are.equal(4097, long:argmax():item())
        assert.are.equal(0, long:argmin():item())
        local tall = pg.zeros(700, 40)
        tall[{ 650, 33 }] = 2
        local top, where = tall:max(0)
        assert.are.same({ 2, 650 }, { top[33]:item(), where[33]:item() })
        assert.are.equal(650 * 40 + 33, tall:argmax():item())
        assert.are.equal(33 * 700 + 650, tall:t():argmax():item())
    end)

    it("norms of every order", function()
        local x = pg.float64 { 3, -4, 0 }
        assert.are.equal(5, x:norm():item())
        assert.are.equal(7, x:norm(1):item())
        assert.are.equal(2, x:norm(0):item())
        assert.are.equal(4, x:norm(INF):item())
        assert.are.equal(0, x:norm(-INF):item())
        assert.is_true(math.abs(x:norm(3):item() - 91 ^ (1 / 3)) < 1e-12)
    end)

    it("log-sum-exp does not overflow", function()
        assert.is_true(math.abs(pg.tensor { 1000, 1000 }:logsumexp(0):item() - (1000 + math.log(2))) < 1e-3)
        assert.are.equal(-INF, pg.tensor { -INF, -INF }:logsumexp(0):item())
        assert.are.equal(INF, pg.tensor { INF, 0 }:logsumexp(0):item())
        local long = pg.full({ 10000 }, -800):logsumexp(0):item()
        assert.is_true(math.abs(long - (-800 + math.log(10000))) < 1e-3)
    end)

    it("integers and bools", function()
        local x = pg.int32 { { 1, -2, 3 }, { 4, 5, -6 } }
        assert.are.equal(pg.int64, x:sum().dtype)
        assert.are.same({ 2, 3 }, x:sum(1):totable())
        assert.are.same({ 3, 5 }, x:amax(1):totable())
        assert.are.equal(pg.int32, x:amax(1).dtype)
        assert.are.equal(720, x:prod():item())
        assert.are.equal(3, pg.bool { true, false, true, true }:sum():item())
        assert.are.same({ true, false }, pg.bool { { true, true }, { true, false } }:all(1):totable())
        assert.are.same({ true, false }, pg.int64 { { 0, 2 }, { 0, 0 } }:any(1):totable())
        assert.is_true(pg.ones(5000, { dtype = pg.bool }):all():item())
        assert.are.same({ 1, 2 }, pg.int64 { { 0, 2 }, { 3, 4 } }:count_nonzero(1):totable())
        refuses("mean: expected a floating-point dtype, got int32", function() return x:mean() end)
    end)

    it("of nothing", function()
        local none = pg.zeros(0, 3)
        assert.are.same({ 0, 0, 0 }, none:sum(0):totable())
        assert.are.equal(1, none:prod():item())
        assert.is_true(none:mean():item() ~= none:mean():item())
        assert.is_true(none:all():item())
        assert.is_false(none:any():item())
        assert.are.equal(-INF, none:logsumexp(0)[0]:item())
        assert.are.same({ 0 }, { unpack(none:amax(1).shape) })
        refuses("amax", function() return none:amax(0) end)
        refuses("argmax", function() return none:argmax() end)
    end)

    it("running sums", function()
        local x = pg.float64 { { 1, 2, 3 }, { 4, 5, 6 } }
        assert.are.same({ { 1, 3, 6 }, { 4, 9, 15 } }, x:cumsum(1):totable())
        assert.are.same({ { 1, 2, 3 }, { 5, 7, 9 } }, x:cumsum(0):totable())
        assert.are.same({ { 1, 3, 6 }, { 5, 12, 21 } }, x:cumsum(0):cumsum(-1):totable())
        assert.are.same({ 1, 2, 2 }, pg.bool { true, true, false }:cumsum(0):totable())
        local long = pg.ones(100000):cumsum(0)
        assert.are.equal(100000, long[99999]:item())
    end)

    it("give the same bits at every thread count", function()
        local x = random({ 300, 700 })
        same_at_every_thread_count(function()
            return { x:sum(), x:sum(0), x:sum(1), x:t():sum(0), x:var(0), x:logsumexp(0), x:norm(), x:view(-1,
                7):sum(0), x:prod(0),
                x:cumsum(0), (x:max(0)) }
        end)
    end)

    it("name a dimension that is not there", function()
        refuses("sum: dimension out of range (expected to be in range of [-2, 1], but got 2)", function()
            return pg.ones(2, 3):sum(2)
        end)
        refuses("sum", function() return pg.ones(2, 3):sum({ 0, 0 }) end)
    end)
end)
