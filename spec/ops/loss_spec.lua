local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

-- By the definition: q = w ((1 - s) t + s / C), loss = -sum(q log softmax(x)); rows of t.
local function by_definition(x, t, weight, smoothing)
    local classes = x:size(1)
    local q = t * (1 - smoothing) + smoothing / classes
    if weight then q = q * weight end
    return (q * x:log_softmax(1)):sum(1) * -1
end

describe("cross_entropy", function()
    local x = random({ 4, 5 }, { dtype = pg.float64 }) * 3
    local ids = pg.int64 { 2, 0, 4, 2 }
    local weight = pg.tensor({ 0.5, 1, 2, 1.5, 0.1 }, { dtype = pg.float64 })
    local one_hot = F.one_hot(ids, 5):to(pg.float64)

    it("is the negative log of the softmax at the target", function()
        local rows = by_definition(x, one_hot, nil, 0)
        close(F.cross_entropy(x, ids, { reduction = "none" }), rows, 1e-13)
        close(F.cross_entropy(x, ids, { reduction = "sum" }), rows:sum(), 1e-13)
        close(F.cross_entropy(x, ids), rows:sum() * 0.25, 1e-13)
        close(F.cross_entropy(x:to(pg.float32), ids), (rows:sum() * 0.25):to(pg.float32), 1e-6)
        close(F.cross_entropy(x[0], pg.tensor(2, { dtype = pg.int64 })), rows[0], 1e-13)
    end)

    it("weighs, smooths and ignores as PyTorch does", function()
        local total = 2 + 0.5 + 0.1 + 2
        close(F.cross_entropy(x, ids, weight), by_definition(x, one_hot, weight, 0):sum() * (1 / total), 1e-13)
        close(F.cross_entropy(x, ids, weight, { label_smoothing = 0.3 }),
            by_definition(x, one_hot, weight, 0.3):sum() * (1 / total), 1e-13)
        local kept = by_definition(x, one_hot, nil, 0.1)
        local some = F.cross_entropy(x, pg.int64 { 2, -100, 4, -100 }, { label_smoothing = 0.1 })
        close(some, (kept[0] + kept[2]) * 0.5, 1e-13)
        close(F.cross_entropy(x, ids, { ignore_index = 2, reduction = "none" })[0], pg.tensor(0,
            { dtype = pg.float64 }), 0)
        local none = F.cross_entropy(x, pg.int64 { -100, -100, -100, -100 }):item()
        assert.is_true(none ~= none)
    end)

    it("takes probabilities", function()
        local t = random({ 4, 5 }, { dtype = pg.float64 }):softmax(1)
        close(F.cross_entropy(x, t, { reduction = "none" }), by_definition(x, t, nil, 0), 1e-13)
        close(F.cross_entropy(x, t, weight, { label_smoothing = 0.2 }), by_definition(x, t, weight,
            0.2):sum() * 0.25, 1e-13)
    end)

    it("takes classes in the second of many dimensions, and any strides", function()
        local y = random({ 2, 3, 4 })
        local t = pg.int64 { { 0, 1, 2, 0 }, { 2, 2, 1, 0 } }
        local flat = F.cross_entropy(y:transpose(1, 2):reshape(8, 3), t:reshape(8), { reduction = "none" })
        close(F.cross_entropy(y, t, { reduction = "none" }), flat:reshape(2, 4), 1e-6)
        local wide = random({ 3, 10 })
        local part = wide:narrow(1, 2, 5)
        close(F.cross_entropy(part, pg.int64 { 0, 4, 1 }), F.cross_entropy(part:contiguous(), pg.int64 { 0, 4, 1 }), 0)
        local turned = random({ 5, 3 }):t()
        close(F.cross_entropy(turned, pg.int64 { 0, 4, 1 }), F.cross_entropy(turned:contiguous(), pg.int64 { 0,
            4, 1 }), 0)
    end)

    it("gives softmax minus the target as gradient", function()
        local z = random({ 3, 70 }, { requires_grad = true })
        local t = pg.int64 { 69, 0, -100 }
        F.cross_entropy(z, t):backward()
        local expected = z:detach():softmax(1)
        expected[0][69] = expected[0][69]:item() - 1
        expected[1][0] = expected[1][0]:item() - 1
        expected = expected * 0.5
        expected[2] = 0
        close(z.grad, expected, 1e-6)
    end)

    it("has rows of no class", function()
        local none = pg.zeros(3, 0):requires_grad_()
        local loss = F.cross_entropy(none, pg.int64 { -100, -100, -100 }, { reduction = "none" })
        close(loss, pg.zeros(3), 0)
        assert.same({ 3, 0 }, { unpack(pg.autograd.grad(loss:sum(), none).shape) })
        close(F.cross_entropy(none, pg.zeros(3, 0), { reduction = "none" }), pg.zeros(3), 0)
        refuses("cross_entropy: index 0 is out of range",
            function() F.cross_entropy(none, pg.int64 { -100, 0, -100 }) end)
        -- more of them than memory that was never asked for would hold
        close(F.cross_entropy(pg.zeros(100000, 0), pg.full({ 100000 }, -100):to(pg.int64), { reduction = "none" }),
            pg.zeros(100000), 0)
    end)

    it("works in halves", function()
        local h = x:to(pg.bfloat16):requires_grad_()
        local loss = F.cross_entropy(h, ids)
        assert.are.equal(pg.bfloat16, loss.dtype)
        loss:backward()
        assert.are.equal(pg.bfloat16, h.grad.dtype)
        close(loss:to(pg.float32), F.cross_entropy(x:to(pg.bfloat16):to(pg.float32), ids), 1e-2)
    end)

    it("gives the same bits at every thread count", function()
        local z = random({ 400, 65 }, { requires_grad = true })
        local list = {}
        for k = 1, 400 do list[k] = (k * 7) % 65 end
        local t = pg.int64(list)
        numbers.same_at_every_thread_count(function()
            local loss = F.cross_entropy(z, t)
            return { loss, pg.autograd.grad(loss, z) }
        end)
    end)

    it("says what does not fit", function()
        refuses("cross_entropy: for input of shape [4, 5] expected target of shape [4] (class "
            .. "ids) or [4, 5] (probabilities), got [3]",
            function() F.cross_entropy(x, pg.int64 { 1, 2, 3 }) end)
        refuses("cross_entropy: index 5 is out of range", function() F.cross_entropy(x, pg.int64 { 1, 5, 0, 0 }) end)
        refuses("cross_entropy: index -1 is out of range", function() F.cross_entropy(x, pg.int64 { 1, -1, 0, 0 }) end)
        refuses("cross_entropy: expected class ids of dtype int64, got float32", function()
            F.cross_entropy(x, pg.tensor { 1, 2, 0, 0 })
        end)
        refuses("cross_entropy: expected weight of shape [5]", function()
            F.cross_entropy(x, ids, pg.tensor { 1, 2 })
        end)
        refuses("cross_entropy: label_smoothing must be between 0 and 1, got 2", function()
            F.cross_entropy(x, ids, { label_smoothing = 2 })
        end)
        refuses("cross_entropy: expected a floating input, got int64", function() F.cross_entropy(ids, ids) end)
        -- and the engine goes on
        close(F.cross_entropy(x, ids, { reduction = "none" }), by_definition(x, one_hot, nil, 0), 1e-13)
    end)
end)

describe("nll_loss", function()
    it("is cross_entropy of log-probabilities", function()
        local x = random({ 4, 3 })
        local ids, weight = pg.int64 { 2, -100, 0, 1 }, pg.tensor { 0.5, 1, 2 }
        for _, reduction in ipairs { "none", "mean", "sum" } do
            local options = { reduction = reduction }
            close(F.nll_loss(x:log_softmax(1), ids, options), F.cross_entropy(x, ids, options), 1e-6)
            close(F.nll_loss(x:log_softmax(1), ids, weight, options), F.cross_entropy(x, ids, weight, options), 1e-6)
        end
        local y = random({ 2, 3, 2 })
        close(F.nll_loss(y:log_softmax(1), pg.int64 { { 0, 1 }, { 2, 2 } }),
            F.cross_entropy(y, pg.int64 { { 0, 1 }, { 2, 2 } }), 1e-6)
    end)
    it("says what does not fit", function()
        refuses("nll_loss: for input of shape [2, 3] expected target of shape [2]", function()
            F.nll_loss(random({ 2, 3 }), pg.int64 { 1 })
        end)
        refuses("nll_loss: expected class ids, got probabilities", function()
            F.nll_loss(random({ 2, 3 }), random({ 2, 3 }))
        end)
    end)
end)

describe("losses of differences", function()
    it("are squared and absolute", function()
        local a, b = pg.tensor { 1, 2, 4 }, pg.tensor { 1, 0, 1 }
        assert.are.same({ 0, 4, 9 }, F.mse_loss(a, b, { reduction = "none" }):totable())
        assert.are.equal(13, F.mse_loss(a, b, { reduction = "sum" }):item())
        close(F.mse_loss(a, b), pg.tensor(13 / 3), 1e-6)
        assert.are.same({ 0, 2, 3 }, F.l1_loss(a, b, { reduction = "none" }):totable())
        close(F.l1_loss(a, b), pg.tensor(5 / 3), 1e-6)
        refuses("mse_loss: shapes do not broadcast: [3] and [2]", function() F.mse_loss(a, pg.tensor { 1, 2 }) end)
    end)
end)

describe("binary_cross_entropy_with_logits", function()
    local x, t = pg.tensor({ -3, 0.5, 40 }, { dtype = pg.float64 }), pg.tensor({ 0, 1, 0.25 }, { dtype = pg.float64 })

    -- -(p t log s(x) + (1 - t) log(1 - s(x))) by the definition
    local function of(logit, target, positive)
        local s = 1 / (1 + math.exp(-logit))
        local rest = target < 1 and (1 - target) * (logit > 30 and -logit or math.log(1 - s)) or 0
        return -(positive * target * math.log(s) + rest)
    end

    it("is the cross entropy of a sigmoid", function()
        local rows = pg.tensor({ of(-3, 0, 1), of(0.5, 1, 1), of(40, 0.25, 1) }, { dtype = pg.float64 })
        close(F.binary_cross_entropy_with_logits(x, t, { reduction = "none" }), rows, 1e-12)
        close(F.binary_cross_entropy_with_logits(x, t), rows:mean(), 1e-12)
        local w, p = pg.tensor({ 1, 2, 3 }, { dtype = pg.float64 }), pg.tensor({ 3 }, { dtype = pg.float64 })
        local weighted = pg.tensor({ of(-3, 0, 3), 2 * of(0.5, 1, 3), 3 * of(40, 0.25, 3) }, { dtype = pg.float64 })
        close(F.binary_cross_entropy_with_logits(x, t, w, { pos_weight = p, reduction = "sum" }), weighted:sum(), 1e-12)
    end)

    it("neither overflows nor loses small values", function()
        local far, each = pg.tensor { -200, 200 }, { reduction = "none" }
        close(F.binary_cross_entropy_with_logits(far, pg.tensor { 1, 0 }, each), pg.tensor { 200, 200 }, 0)
        close(F.binary_cross_entropy_with_logits(far, pg.tensor { 0, 1 }, each), pg.tensor { 0, 0 }, 0)
        local small = F.binary_cross_entropy_with_logits(pg.tensor { -30 }, pg.tensor { 0 }):item()
        assert.is_true(math.abs(small / math.exp(-30) - 1) < 1e-5)
        local zero = pg.tensor({ 0, 0 }, { requires_grad = true })
        F.binary_cross_entropy_with_logits(zero, pg.tensor { 1, 0 }, { reduction = "sum" }):backward()
        assert.are.same({ -0.5, 0.5 }, zero.grad:totable())
    end)

    it("says what does not fit", function()
        refuses("target size ([2]) must be the same as input size ([3])", function()
            F.binary_cross_entropy_with_logits(x, t:narrow(0, 0, 2))
        end)
    end)
end)
