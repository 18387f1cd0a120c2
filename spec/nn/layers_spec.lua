local pg = require("perigee")
local numbers = require("spec.support.numbers")

local nn, F = pg.nn, pg.nn.functional

local function close(expected, actual, tolerance)
    assert.is_true(math.abs(expected - actual) <= (tolerance or 1e-6),
        ("expected %.9g, got %.9g"):format(expected, actual))
end

local function std(t)
    return t:std():item()
end

describe("layers", function()
    it("Linear multiplies and adds", function()
        local m = nn.Linear(2, 3)
        m:load_state_dict { weight = pg.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 } }, bias = pg.tensor { 10, 20, 30 } }
        assert.same({ { 13, 27, 41 } }, m(pg.ones(1, 2)):totable())
        assert.same({ 2, 4, 3 }, { unpack(m(pg.ones(2, 4, 2)).shape) })
        assert.is_nil(nn.Linear(2, 3, false).bias)
        assert.equal(pg.float64, nn.Linear(2, 3, { dtype = pg.float64 }).weight.dtype)
        assert.equal(0, nn.Linear(0, 3).bias:sum():item())
    end)

    it("Linear starts as PyTorch's does", function()
        pg.manual_seed(3)
        local m = nn.Linear(300, 400)
        local bound = 1 / math.sqrt(300)
        for _, p in ipairs(m:parameters()) do
            assert.is_true(p:abs():max():item() <= bound)
            close(bound / math.sqrt(3), std(p), 0.05 * bound)
        end
        -- The weight is drawn first, then the bias.
        pg.manual_seed(3)
        local weight = pg.empty(400, 300):uniform_(-bound, bound)
        local bias = pg.empty(400):uniform_(-bound, bound)
        assert.is_true(weight:eq(m.weight):all():item())
        assert.is_true(bias:eq(m.bias):all():item())
    end)

    it("Embedding looks up, and leaves its padding row alone", function()
        local m = nn.Embedding(5, 3, { padding_idx = -1 })
        assert.equal(4, m.padding_idx)
        assert.same({ 0, 0, 0 }, m.weight[4]:totable())
        local ids = pg.int64 { { 0, 4 }, { 4, 1 } }
        local y = m(ids)
        assert.same(m.weight[1]:totable(), y[1][1]:totable())
        y:sum():backward()
        assert.same({ { 1, 1, 1 }, { 1, 1, 1 }, { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } }, m.weight.grad:totable())
        close(1, std(nn.Embedding(200, 100).weight), 0.05)
        assert.has_error(function() nn.Embedding(5, 3, 5) end)
        assert.is_false((numbers.settled(function() m(pg.int64 { 5 }) end)))
    end)

    it("LayerNorm adds a residual on the way", function()
        for _, dtype in ipairs { pg.float32, pg.float64, pg.bfloat16 } do
            local m = nn.LayerNorm(24):to(dtype)
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias)
            local x, r = pg.randn(2, 7, 24, { dtype = dtype }), pg.randn(2, 7, 24, { dtype = dtype })
            local y, sum = m(x, r)
            assert.is_true(sum:equal(x + r))
            assert.is_true(y:equal(m(sum)))
        end
        local m = nn.LayerNorm(4)
        assert.has_error(function() m(pg.ones(2, 4), pg.ones(4)) end)
        assert.has_error(function() m(pg.ones(2, 4), pg.ones(2, 4, { dtype = pg.float64 })) end)
    end)

    it("LayerNorm normalises the last dimensions", function()
        local m = nn.LayerNorm(4)
        local y = m(pg.tensor { { 1, 2, 3, 4 }, { -2, 0, 0, 2 } })
        close(0, y:mean(1):abs():max():item(), 1e-6)
        close(1, y[0]:var(0, { correction = 0 }):item(), 1e-4)
        assert.same({}, nn.LayerNorm(4, { elementwise_affine = false }):parameters())
        assert.equal(1, #nn.LayerNorm(4, { bias = false }):parameters())
        assert.equal(6, nn.LayerNorm({ 2, 3 }).weight:numel())
        assert.has_error(function() nn.LayerNorm("4") end)
    end)

    it("Dropout drops in training only", function()
        pg.manual_seed(1)
        local m, x = nn.Dropout(0.25), pg.ones(10000)
        local y = m(x)
        close(0.25, y:eq(0):to(pg.float32):mean():item(), 0.03)
        close(4 / 3, y:max():item(), 1e-6)
        m:eval()
        assert.equal(x.id, m(x).id)
        assert.equal(0, nn.Dropout(1)(x):sum():item())
        assert.has_error(function() nn.Dropout(1.5) end)
        assert.has_error(function() nn.Dropout("0.5") end)
    end)

    it("activations", function()
        local x = pg.tensor { -1, 0, 2 }
        assert.same({ 0, 0, 2 }, nn.ReLU()(x):totable())
        close(math.tanh(2), nn.Tanh()(x)[2]:item())
        close(1 / (1 + math.exp(-2)), nn.Sigmoid()(x)[2]:item())
        close(2 / (1 + math.exp(-2)), nn.SiLU()(x)[2]:item())
        close(1.954499736, nn.GELU()(x)[2]:item())
        close(1.954597694, nn.GELU("tanh")(x)[2]:item())
        close(1, nn.Softmax(0)(x):sum():item())
        close(0, nn.LogSoftmax(0)(x):exp():sum():item() - 1)
        assert.equal(x.id, nn.Identity(1, 2, 3)(x).id)
        assert.same({ 2, 12 }, { unpack(nn.Flatten()(pg.ones(2, 3, 4)).shape) })
        assert.same({ 6, 4 }, { unpack(nn.Flatten(0, 1)(pg.ones(2, 3, 4)).shape) })
        local inplace = pg.tensor { -1, 1 }
        nn.ReLU(true)(inplace)
        assert.same({ 0, 1 }, inplace:totable())
        assert.has_error(function() nn.GELU("exact") end)
        assert.has_error(function() nn.Softmax() end)
        assert.has_error(function() nn.Tanh(1) end)
    end)

    it("losses", function()
        local logits, ids = pg.tensor { { 1, 2, 3 }, { 0, 0, 0 } }, pg.int64 { 2, 0 }
        close(F.cross_entropy(logits, ids):item(), nn.CrossEntropyLoss()(logits, ids):item())
        close((0.40760596 + math.log(3)) / 2, nn.CrossEntropyLoss()(logits, ids):item())
        local weighted = nn.CrossEntropyLoss { weight = pg.tensor { 1, 1, 3 }, reduction = "sum" }
        close(3 * 0.40760596 + math.log(3), weighted(logits, ids):item(), 1e-5)
        assert.same({ "weight" }, weighted:state_dict():keys())
        assert.same({}, weighted:parameters())
        local ignoring = nn.CrossEntropyLoss { ignore_index = 0 }
        close(0.40760596, ignoring(logits, ids):item())
        close(nn.CrossEntropyLoss()(logits, ids):item(), nn.NLLLoss()(logits:log_softmax(1), ids):item())
        local a, b = pg.tensor { 1, 2 }, pg.tensor { 3, 5 }
        close(6.5, nn.MSELoss()(a, b):item())
        close(5, nn.L1Loss { reduction = "sum" }(a, b):item())
        close(math.log(2), nn.BCEWithLogitsLoss()(pg.zeros(2), pg.tensor { 0, 1 }):item())
        assert.has_error(function() nn.MSELoss { reduction = "max" } end)
        assert.has_error(function() nn.MSELoss { weight = a } end)
    end)

    it("LinearCrossEntropyLoss", function()
        pg.manual_seed(4)
        local head = nn.LinearCrossEntropyLoss(3, 5, { bias = true, label_smoothing = 0.1, ignore_index = 2 })
        assert.same({ "linear.weight", "linear.bias" }, head:state_dict():keys())
        local x, ids = pg.randn(4, 3), pg.int64 { 4, 2, 0, 1 }
        local options = { label_smoothing = 0.1, ignore_index = 2 }
        close(F.cross_entropy(head.linear(x), ids, options):item(), head(x, ids):item())
        local weight = pg.tensor { 1, 2, 3, 4, 5 }
        local weighted = nn.LinearCrossEntropyLoss(3, 5, { weight = weight, reduction = "sum", out_features = { 2 } })
        assert.same({ "weight", "linear.weight" }, weighted:state_dict():keys())
        assert.same({ 10, 3 }, { unpack(weighted.linear.weight.shape) })
        local deep = pg.int64 { { 0, 1 }, { 2, 3 }, { 4, 0 }, { 1, 1 } }
        close(F.cross_entropy(weighted.linear(x):view(4, 5, 2), deep, weight, { reduction = "sum" }):item(),
            weighted(x, deep):item(), 1e-4)
        close(nn.CrossEntropyLoss()(head.linear(x), pg.full({ 4, 5 }, 0.2)):item(),
            nn.LinearCrossEntropyLoss.forward({
                linear = head.linear, out_features = {}, reduction = "mean", label_smoothing = 0,
            }, x, pg.full({ 4, 5 }, 0.2)):item())
        local function refuses(pattern, ...)
            local ok, why = pcall(nn.LinearCrossEntropyLoss, ...)
            assert.is_false(ok)
            assert.matches(pattern, why, 1, true)
        end
        refuses("expected weight of shape [5], got", 3, 5, { weight = pg.ones(4) })
        refuses("label_smoothing must be in [0, 1], got 2", 3, 5, { label_smoothing = 2 })
        refuses("reduction must be none, mean or sum", 3, 5, { reduction = "max" })
        refuses("num_classes must be at least 1, got 0", 3, 0)
        refuses('out_features must be an integer, got string "2"', 3, 5, { out_features = { "2" } })
        refuses("unknown option options", 3, 5, { options = {} })
    end)

    it("train inside a scope", function()
        local m = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2))
        for _ = 1, 3 do
            pg.scope(function()
                m(pg.ones(5, 3)):square():mean():backward()
            end)
            for _, p in ipairs(m:parameters()) do
                assert.is_true(p.grad:isfinite():all():item())
            end
        end
    end)
end)

describe("nn.init", function()
    it("fills in place and gives the tensor back", function()
        local x = pg.empty(3, 2)
        assert.equal(x.id, nn.init.ones_(x).id)
        assert.same({ { 1, 1 }, { 1, 1 }, { 1, 1 } }, x:totable())
        assert.equal(0, nn.init.zeros_(x):sum():item())
        assert.equal(2.5, nn.init.constant_(x, 2.5):mean():item())
        local p = nn.Parameter(x)
        nn.init.uniform_(p, 1, 2)
        assert.is_true(p:min():item() >= 1 and p:max():item() < 2)
        assert.is_true(p.is_leaf and p.requires_grad)
    end)

    it("has the spreads of its formulas", function()
        pg.manual_seed(5)
        local w = pg.empty(200, 300)
        close(2, nn.init.normal_(w, 2, 0.5):mean():item(), 0.02)
        close(0.5, std(w), 0.02)
        close(math.sqrt(2 / 500), std(nn.init.xavier_normal_(w)), 1e-3)
        close(3 * math.sqrt(2 / 500), std(nn.init.xavier_uniform_(w, 3)), 3e-3)
        assert.is_true(w:abs():max():item() <= 3 * math.sqrt(6 / 500))
        close(math.sqrt(2 / 300), std(nn.init.kaiming_normal_(w, { nonlinearity = "relu" })), 1e-3)
        close(math.sqrt(2 / 200), std(nn.init.kaiming_uniform_(w, { mode = "fan_out" })), 2e-3)
        assert.same({ 3 * 20, 2 * 20 }, { nn.init.fans(pg.empty(2, 3, 4, 5)) })
        assert.has_error(function() nn.init.xavier_normal_(pg.empty(3)) end)
        assert.has_error(function() nn.init.kaiming_normal_(w, { mode = "fan" }) end)
    end)

    it("trunc_normal_ stays inside, near the mean and far from it", function()
        pg.manual_seed(6)
        local w = nn.init.trunc_normal_(pg.empty(20000))
        assert.is_true(w:min():item() >= -2 and w:max():item() <= 2)
        close(0, w:mean():item(), 0.03)
        close(0.8796, std(w), 0.02)      -- of a normal cut at two standard deviations
        w = nn.init.trunc_normal_(pg.empty(20000), 0, 1, 1.5, 3)
        assert.is_true(w:min():item() >= 1.5 and w:max():item() <= 3)
        close(1.91095, w:mean():item(), 0.02)
        assert.has_error(function() nn.init.trunc_normal_(w, 0, 1, 2, 1) end)
    end)

    it("calculate_gain", function()
        assert.equal(1, nn.init.calculate_gain("linear"))
        assert.equal(5 / 3, nn.init.calculate_gain("tanh"))
        close(math.sqrt(2), nn.init.calculate_gain("relu"))
        close(math.sqrt(2 / 1.04), nn.init.calculate_gain("leaky_relu", 0.2))
        assert.equal(0.75, nn.init.calculate_gain("selu"))
        assert.has_error(function() nn.init.calculate_gain("swish") end)
    end)
end)

describe("nn.utils", function()
    local function with_grads()
        local a, b, c = pg.zeros(2, { requires_grad = true }), pg.zeros(1, { requires_grad = true }), pg.zeros(1)
        a.grad, b.grad = pg.tensor { 3, 0 }, pg.tensor { -4 }
        return a, b, c
    end

    it("clip_grad_norm_ scales to the norm", function()
        local a, b, c = with_grads()
        close(5, nn.utils.clip_grad_norm_({ a, b, c }, 1):item())
        close(0.6, a.grad[0]:item())
        close(-0.8, b.grad:item())
        close(1, nn.utils.clip_grad_norm_({ a, b }, 10):item())     -- below: nothing changes
        close(0.6, a.grad[0]:item())
        close(0.8, nn.utils.clip_grad_norm_({ a, b }, 10, { norm_type = math.huge }):item())
        close(1.4, nn.utils.clip_grad_norm_({ a, b }, 0.7, 1):item())
        close(0.3, a.grad[0]:item())
        assert.equal(0, nn.utils.clip_grad_norm_({ c }, 1):item())
    end)

    it("clip_grad_norm_ says where gradients are not finite", function()
        local a, b = with_grads()
        b.grad = pg.tensor { math.huge }
        assert.has_error(function() nn.utils.clip_grad_norm_({ a, b }, 1, { error_if_nonfinite = true }) end)
        assert.same({ 3, 0 }, a.grad:totable())
        assert.equal(math.huge, nn.utils.clip_grad_norm_({ a, b }, 1):item())
        assert.has_error(function() nn.utils.clip_grad_norm_({ a, b }, 1, { norm_type = -1 }) end)
        assert.has_error(function() nn.utils.clip_grad_norm_({ 3 }, 1) end)
        assert.has_error(function() nn.utils.clip_grad_norm_({ a }, "1") end)
    end)

    it("clip_grad_value_ clamps", function()
        local a, b = with_grads()
        nn.utils.clip_grad_value_({ a, b }, 2)
        assert.same({ 2, 0 }, a.grad:totable())
        assert.same({ -2 }, b.grad:totable())
    end)

    it("turns parameters into a vector and back", function()
        local m = nn.Linear(2, 3)
        local vector = nn.utils.parameters_to_vector(m:parameters())
        assert.equal(9, vector:numel())
        nn.utils.vector_to_parameters(pg.arange(9):to(pg.float32), m:parameters())
        assert.same({ { 0, 1 }, { 2, 3 }, { 4, 5 } }, m.weight:totable())
        assert.same({ 6, 7, 8 }, m.bias:totable())
        assert.has_error(function() nn.utils.vector_to_parameters(pg.ones(8), m:parameters()) end)
    end)
end)
