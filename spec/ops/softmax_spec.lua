local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

-- Of one row, by the definition, in double.
local function softmax_of(row)
    local top, sum, out = -math.huge, 0, {}
    for _, v in ipairs(row) do top = math.max(top, v) end
    for _, v in ipairs(row) do sum = sum + math.exp(v - top) end
    for k, v in ipairs(row) do out[k] = math.exp(v - top) / sum end
    return out
end

describe("softmax", function()
    it("is exp over the sum of exps", function()
        for _, dtype in ipairs { pg.float32, pg.float64 } do
            for _, n in ipairs { 1, 3, 16, 17, 65, 130 } do
                local x = random({ 4, n }, { dtype = dtype }) * 4
                local expected = {}
                for i, row in ipairs(x:totable()) do expected[i] = softmax_of(row) end
                expected = pg.tensor(expected, { dtype = dtype })
                local tolerance = dtype == pg.float32 and 1e-6 or 1e-14
                close(x:softmax(1), expected, tolerance)
                close(F.softmax(x, -1), expected, tolerance)
                local logs = x:log_softmax(-1):totable()
                for i, row in ipairs(expected:totable()) do
                    for j, v in ipairs(row) do assert.is_true(math.abs(logs[i][j] - math.log(v)) < 20 * tolerance) end
                end
            end
        end
    end)

    it("goes along any dimension of any strides", function()
        local x = random({ 3, 4, 5 })
        close(x:softmax(0), x:permute(1, 2, 0):contiguous():softmax(-1):permute(2, 0, 1), 0)
        close(x:softmax(1), x:transpose(1, 2):contiguous():softmax(-1):transpose(1, 2), 0)
        local t = x:transpose(0, 2)
        close(t:log_softmax(-1), t:contiguous():log_softmax(2), 0)
        assert.are.equal(1, pg.tensor(3.5):softmax(0):item())
        assert.are.same({ 0, 3 }, { unpack(x:select(1, 0):narrow(0, 0, 0):narrow(1, 0, 3):softmax(1).shape) })
    end)

    it("keeps large, infinite and NaN inputs apart", function()
        close(pg.tensor { 1000, 1000 }:softmax(0), pg.tensor { 0.5, 0.5 }, 0)
        close(pg.tensor { -1 / 0, 0, -1 / 0 }:softmax(0), pg.tensor { 0, 1, 0 }, 0)
        local nan = pg.tensor { 0 / 0, 0 }:softmax(0):totable()
        assert.is_true(nan[1] ~= nan[1] and nan[2] ~= nan[2])
        local none = pg.tensor { -1 / 0, -1 / 0 }:softmax(0):totable()
        assert.is_true(none[1] ~= none[1])
        close(pg.tensor { -1 / 0, 0 }:log_softmax(0), pg.tensor { -1 / 0, 0 }, 0)
    end)

    it("converts first where a dtype is given", function()
        local y = pg.int64 { 1, 1 }:softmax(0, { dtype = pg.float64 })
        assert.are.equal(pg.float64, y.dtype)
        assert.are.same({ 0.5, 0.5 }, y:totable())
        local half = pg.tensor { 1, 1 }:to(pg.float16)
        assert.are.equal(pg.float16, half:softmax(0).dtype)
        assert.are.same({ 0.5, 0.5 }, half:softmax(0):to(pg.float32):totable())
    end)

    it("gives the same bits at every thread count", function()
        local x = random({ 700, 130 }, { requires_grad = true })
        numbers.same_at_every_thread_count(function()
            local y, z = x:softmax(1), x:log_softmax(1)
            return { y, z, pg.autograd.grad(y:mul(y):sum(), x), pg.autograd.grad(z:mul(z):sum(), x) }
        end)
    end)

    it("says what it needs", function()
        refuses("softmax: expected a floating dtype, got int64", function() pg.int64 { 1 }:softmax(0) end)
        refuses("log_softmax: dimension out of range (expected to be in range of [-2, 1], but got 2)", function()
            random({ 2, 2 }):log_softmax(2)
        end)
    end)
end)
