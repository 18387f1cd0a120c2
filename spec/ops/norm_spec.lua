local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

local function normalised(row, eps)
    local mean, var, out = 0, 0, {}
    for _, v in ipairs(row) do mean = mean + v / #row end
    for _, v in ipairs(row) do var = var + (v - mean) ^ 2 / #row end
    for k, v in ipairs(row) do out[k] = (v - mean) / math.sqrt(var + eps) end
    return out
end

describe("layer_norm", function()
    it("gives rows mean 0 and variance 1, then scales and shifts", function()
        for _, dtype in ipairs { pg.float32, pg.float64 } do
            for _, n in ipairs { 1, 2, 15, 33, 130 } do
                local x = random({ 3, n }, { dtype = dtype }) * 3 + 1
                local w, b = random({ n }, { dtype = dtype }), random({ n }, { dtype = dtype })
                local expected = {}
                for i, row in ipairs(x:totable()) do expected[i] = normalised(row, 1e-5) end
                expected = pg.tensor(expected, { dtype = dtype })
                local tolerance = dtype == pg.float32 and 2e-5 or 1e-12
                close(F.layer_norm(x, n), expected, tolerance)
                close(F.layer_norm(x, { n }, w, b), expected * w + b, tolerance)
                close(F.layer_norm(x, { n }, w), expected * w, tolerance)
                close(F.layer_norm(x, { n }, nil, b), expected + b, tolerance)
            end
        end
    end)

    it("normalises over several dimensions of any strides", function()
        local x = random({ 4, 3, 2 })
        close(F.layer_norm(x, { 3, 2 }):reshape(4, 6), F.layer_norm(x:reshape(4, 6), { 6 }), 0)
        local t = x:transpose(0, 2)
        close(F.layer_norm(t, 4, nil, nil, 0.1), F.layer_norm(t:contiguous(), 4, nil, nil, 0.1), 0)
    end)

    it("works in halves, with statistics in float32", function()
        for _, dtype in ipairs { pg.float16, pg.bfloat16 } do
            local x = random({ 3, 20 }):to(dtype)
            local y = F.layer_norm(x, 20)
            assert.are.equal(dtype, y.dtype)
            close(y:to(pg.float32), F.layer_norm(x:to(pg.float32), 20), 2e-2)
            x:requires_grad_()
            F.layer_norm(x, 20):backward(random({ 3, 20 }):to(dtype))
            assert.are.equal(dtype, x.grad.dtype)
        end
    end)

    it("gives the same bits at every thread count", function()
        local x = random({ 300, 65 }, { requires_grad = true })
        local w, b = random({ 65 }, { requires_grad = true }), random({ 65 }, { requires_grad = true })
        local g = random({ 300, 65 })
        numbers.same_at_every_thread_count(function()
            local y = F.layer_norm(x, 65, w, b)
            return { y, pg.autograd.grad(y, { x, w, b }, { grad_outputs = g }) }
        end)
    end)

    it("says what does not fit", function()
        refuses("layer_norm: expected input whose last sizes are [4], got [2, 3]", function()
            F.layer_norm(random({ 2, 3 }), 4)
        end)
        refuses("layer_norm: expected weight of shape [3], got [2]", function()
            F.layer_norm(random({ 2, 3 }), 3, random({ 2 }))
        end)
        refuses("layer_norm: expected bias of shape [3], got [3, 1]", function()
            F.layer_norm(random({ 2, 3 }), 3, nil, random({ 3, 1 }))
        end)
        refuses("layer_norm: expected a floating input, got int64", function() F.layer_norm(pg.int64 { 1, 2 }, 2) end)
        refuses("layer_norm: expected weight to have the dtype of input, float32, got float64", function()
            F.layer_norm(random({ 2, 3 }), 3, random({ 3 }, { dtype = pg.float64 }))
        end)
    end)
end)
