local pg = require "perigee"
local numbers = require "spec.support.numbers"

local random, close, refuses = numbers.random, numbers.close, numbers.refuses
local INF, NAN = math.huge, 0 / 0
local ALL = { "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8" }

-- Positions of a list in stable order.
local function order_of(list, descending)
    local order = {}
    for k = 1, #list do order[k] = k end
    table.sort(order, function(a, b)
        if list[a] ~= list[b] then
            if descending then return list[a] > list[b] end
            return list[a] < list[b]
        end
        return a < b
    end)
    return order
end

local function check(x, descending)
    local values, indices = x:sort({ descending = descending })
    local list, v, i = x:totable(), values:totable(), indices:totable()
    for k, at in ipairs(order_of(list, descending)) do
        assert.are.equal(at - 1, i[k])
        assert.are.equal(list[at], v[k])
    end
end

describe("sorting", function()
    it("is stable, in every dtype, short and long", function()
        for _, name in ipairs(ALL) do
            local low = name == "uint8" and 0 or -60
            for _, n in ipairs { 1, 2, 17, 200, 1500 } do
                local x = pg.randint(low, 60, { n }):to(pg[name])
                check(x, false)
                check(x, true)
            end
        end
        check(random({ 3000 }), false)
        check(random({ 3000 }, { dtype = pg.float64 }) * 1e300, true)
        check(pg.randint(-2 ^ 52, 2 ^ 52, { 3000 }), false)
        assert.are.same({ false, false, true, true }, (pg.bool { true, false, true, false }:sort()):totable())
    end)

    it("goes along any dimension", function()
        local x = random({ 4, 6, 5 })
        for dim = 0, 2 do
            local values, indices = x:sort(dim)
            close(x:gather(dim, indices), values, 0)
            close(values:narrow(dim, 1, x.shape[dim + 1] - 1):maximum(values:narrow(dim, 0, x.shape[dim + 1] - 1)),
                values:narrow(dim, 1, x.shape[dim + 1] - 1), 0)
            assert.is_true(pg.equal(x:argsort(dim), indices))
        end
        assert.are.equal(1.5, (pg.tensor(1.5):sort()):item())
        assert.are.equal(0, (pg.zeros(0):sort()):numel())
        refuses("sort", function() return pg.ones(2, 3):sort(2) end)
    end)

    it("puts NaN last, first when descending", function()
        local x = pg.tensor { 1, NAN, -INF, INF, 3 }
        local _, up = x:sort()
        local _, down = x:sort({ descending = true })
        assert.are.same({ 2, 0, 4, 3, 1 }, up:totable())
        assert.are.same({ 1, 3, 4, 0, 2 }, down:totable())
        local _, zeros = pg.tensor { 0, -0.0, 0 }:sort()
        assert.are.same({ 0, 1, 2 }, zeros:totable())
    end)

    it("finds the k best", function()
        for _, k in ipairs { 1, 3, 100, 900 } do
            local x = random({ 3, 900 })
            for _, largest in ipairs { true, false } do
                local values, indices = x:topk(k, -1, largest)
                local sorted, order = x:sort(-1, largest)
                close(values, sorted:narrow(1, 0, k), 0)
                assert.is_true(pg.equal(indices, order:narrow(1, 0, k)))
            end
        end
        local values, indices = pg.int64 { { 7, 3, 9, 9 }, { 1, 2, 0, 5 } }:topk(2, 1)
        assert.are.same({ { 9, 9 }, { 5, 2 } }, values:totable())
        assert.are.same({ { 2, 3 }, { 3, 1 } }, indices:totable())
        assert.are.same({ { 7, 3, 9, 9 } }, (pg.int64 { { 7, 3, 9, 9 }, { 1, 2, 0, 5 } }:topk(1, 0)):totable())
        local top = pg.tensor { 1, NAN, 3 }:topk(2):totable()
        assert.is_true(top[1] ~= top[1] and top[2] == 3)
        refuses("topk", function() return pg.ones(5):topk(6) end)
        refuses("topk", function() return pg.ones(5):topk(-1) end)
    end)

    it("gives the same at every thread count", function()
        local x = random({ 40, 2000 })
        numbers.same_at_every_thread_count(function()
            local values, indices = x:sort()
            local v, i = x:topk(5)
            return { values, indices, v, i }
        end)
    end)
end)
