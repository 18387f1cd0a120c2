--- Autocast regions and GradScaler.

local fixture = require "fixtures.fixture"
local numbers = require "spec.support.numbers"
local pg = require "perigee"

local F, nn = pg.nn.functional, pg.nn
local close, refuses = numbers.close, numbers.refuses
local device = pg.get_default_device()
local kind = device:match("^%a+")

local function name_of(t) return (tostring(t.dtype):gsub("^.*%.", "")) end
local function autocast(f, ...) return pg.autocast(kind, { dtype = pg.bfloat16 }, f, ...) end

local labels = { 0, 1, 2, 3 }
local OPS = {
    matmul = pg.matmul, mm = pg.mm, cat = function(x, y) return pg.cat { x, y } end,
    bmm = function(x, y) return pg.bmm(x:unsqueeze(0), y:unsqueeze(0)) end,
    mv = function(x, y) return pg.mv(x, y[0]) end, dot = function(x, y) return pg.dot(x[0], y[0]) end,
    addmm = function(x, y) return pg.addmm(x, x, y) end, linear = function(x, y) return F.linear(x, y, y[0]) end,
    attention = function(x, y)
        local k = y:view(1, 1, 4, 4)
        return F.scaled_dot_product_attention(x:view(1, 1, 4, 4), k, k)
    end,
    stack = function(x, y) return pg.stack { x, y } end,
    add = pg.add, mul = pg.mul, maximum = pg.maximum, atan2 = pg.atan2,
    addcmul = function(x, y) return pg.addcmul(x, x, y) end,
    exp = function(x) return x:exp() end, log = function(x) return x:log() end,
    reciprocal = function(x) return x:reciprocal() end, pow = function(x) return x:pow(2) end,
    softplus = function(x) return F.softplus(x) end, gelu = function(x) return F.gelu(x) end,
    sum = function(x) return x:sum() end, mean = function(x) return x:mean() end,
    prod = function(x) return x:prod() end, cumsum = function(x) return x:cumsum(0) end,
    norm = function(x) return x:norm() end, logsumexp = function(x) return x:logsumexp { 0 } end,
    softmax = function(x) return x:softmax(-1) end, log_softmax = function(x) return x:log_softmax(-1) end,
    layer_norm = function(x) return F.layer_norm(x, { 4 }) end, mse_loss = F.mse_loss, l1_loss = F.l1_loss,
    bce_with_logits = F.binary_cross_entropy_with_logits,
    cross_entropy = function(x) return F.cross_entropy(x, pg.int64(labels)) end,
    nll_loss = function(x) return F.nll_loss(x, pg.int64(labels)) end,
    linear_cross_entropy = function(x, y) return F.linear_cross_entropy(x, y, pg.int64(labels)) end,
}
-- Where Perigee means to differ.
local OTHERWISE = {
    -- ours is of the widest dtype
    ["bce_with_logits float64 bfloat16"] = "float64", ["bce_with_logits float64 float16"] = "float64",
    ["bce_with_logits float64 float32"] = "float64",
}
-- PyTorch's CPU refuses to join float16 with anything while it casts to bfloat16; here it is as without autocast.
for _, op in ipairs { "cat", "stack" } do
    for pair, dtype in pairs {
        ["bfloat16 float16"] = "float32", ["float16 bfloat16"] = "float32", ["float16 float16"] = "float16",
        ["float16 float32"] = "float32", ["float16 float64"] = "float64", ["float64 float16"] = "float64",
    } do
        OTHERWISE[op .. " " .. pair] = dtype
    end
end

-- PyTorch's list for CUDA, where it has more than the CPU's (ATen/autocast_mode.h).
local CUDA_LOW = { mv = true }
local CUDA_F32 = {}
for _, op in ipairs {
    "exp", "log", "reciprocal", "pow", "softplus", "sum", "prod", "cumsum", "norm", "logsumexp", "softmax",
    "log_softmax", "layer_norm", "mse_loss", "l1_loss", "bce_with_logits", "cross_entropy", "nll_loss",
} do
    CUDA_F32[op] = true
end
local CUDA_PROMOTE = { addcmul = true, atan2 = true, dot = true }

describe("autocast", function()
    local document = fixture.read("fixtures/ops/data/autocast.json", "python3 fixtures/ops/generate_ops.py")

    -- nil where PyTorch's answer is not known here: float64 mixed with others on CUDA
    local function wanted(op, first, second, answer)
        if kind ~= "cuda" or (first == "float64" and second == "float64") then return answer end
        if first == "float64" or second == "float64" then return nil end
        if CUDA_LOW[op] then return "bfloat16" end
        if CUDA_F32[op] then return "float32" end
        if CUDA_PROMOTE[op] then
            return first == second and first or "float32"
        end
        return answer
    end

    it("gives PyTorch's dtypes", function()
        local cases, wrong = 0, {}
        for op, table_of in pairs(document.dtypes) do
            local f = assert(OPS[op], op)
            for pair, answer in pairs(table_of) do
                local first, second = pair:match("(%S+) (%S+)")
                local x, y = pg.ones(4, 4, { dtype = pg[first] }), pg.ones(4, 4, { dtype = pg[second] })
                local ok, made = pcall(autocast, f, x, y)
                local got = ok and name_of(made) or "refused"
                local want = OTHERWISE[op .. " " .. pair] or wanted(op, first, second, answer)
                if want and got ~= want then
                    local what = ok and got or tostring(made)
                    wrong[#wrong + 1] = ("%s(%s): %s, PyTorch %s"):format(op, pair, what, want)
                end
                cases = cases + 1
            end
        end
        table.sort(wrong)
        assert.are.same({}, wrong)
        assert.is_true(cases > 500)
    end)

    it("computes PyTorch's loss and float32 gradients", function()
        local n = document.network
        local function tensor(name) return pg.tensor(n[name]) end
        local x = tensor("x")
        local w1, b1, w2 = tensor("w1"):requires_grad_(), tensor("b1"):requires_grad_(), tensor("w2"):requires_grad_()
        local loss = autocast(function()
            return F.cross_entropy(F.linear(F.gelu(F.linear(x, w1, b1)), w2), pg.int64(n.labels))
        end)
        assert.are.equal(pg.float32, loss.dtype)
        loss:backward()
        assert.is_true(math.abs(loss:item() - n.loss) < 0.02)
        for name, w in pairs { w1 = w1, b1 = b1, w2 = w2 } do
            assert.are.equal(pg.float32, w.grad.dtype)
            close(w.grad, tensor("grad_" .. name), 0.02)
        end
    end)

    it("leaves float64, integers, out= and in-place calls alone", function()
        local x = pg.ones(2, 2)
        autocast(function()
            assert.are.equal(pg.float64, x:to(pg.float64):matmul(x:to(pg.float64)).dtype)
            assert.are.equal(pg.int64, x:to(pg.int64):matmul(x:to(pg.int64)).dtype)
            local out = pg.zeros(2, 2)
            assert.are.equal(pg.float32, pg.matmul(x, x, { out = out }).dtype)
            assert.are.equal(pg.float64, x:softmax(0, { dtype = pg.float64 }).dtype)
        end)
    end)

    it("nests, restores, and is off for the other device", function()
        local x = pg.ones(2, 2)
        assert.is_false(pg.is_autocast_enabled(kind))
        autocast(function()
            assert.is_true(pg.is_autocast_enabled(kind))
            assert.are.equal(pg.bfloat16, x:matmul(x).dtype)
            pg.autocast(kind, { enabled = false }, function()
                assert.is_false(pg.is_autocast_enabled(kind))
                assert.are.equal(pg.float32, x:matmul(x).dtype)
                pg.autocast(kind, { dtype = pg.float16 }, function()
                    assert.are.equal(pg.float16, x:matmul(x).dtype)
                    assert.are.equal(pg.float16, pg.get_autocast_dtype(kind))
                end)
            end)
            assert.are.equal(pg.bfloat16, x:matmul(x).dtype)
            assert.has_error(function() pg.autocast(kind, function() error("inside", 0) end) end, "inside")
            assert.are.equal(pg.bfloat16, x:matmul(x).dtype)
        end)
        assert.is_false(pg.is_autocast_enabled(kind))
        pg.autocast(kind == "cpu" and "cuda" or "cpu", function() assert.are.equal(pg.float32, x:matmul(x).dtype) end)
        local mode = pg.autocast.enter(kind, { dtype = pg.bfloat16 })
        assert.are.equal(pg.bfloat16, x:matmul(x).dtype)
        pg.autocast.leave(mode)
        assert.are.equal(pg.float32, x:matmul(x).dtype)
        assert.are.same({ 1, nil, 3 }, { pg.autocast(kind, function(...) return ... end, 1, nil, 3) })
    end)

    it("converts a weight once a region", function()
        local w, x = pg.ones(3, 3):requires_grad_(), pg.ones(2, 3)
        local allocations = function(cached)
            return pg.autocast(kind, { dtype = pg.bfloat16, cache_enabled = cached }, function()
                local a = F.linear(x, w)
                local b = F.linear(x, w)
                return (a + b):sum()
            end)
        end
        for _, cached in ipairs { true, false } do
            w.grad = nil
            allocations(cached):backward()
            close(w.grad, pg.full({ 3, 3 }, 4), 0)
        end
        -- a weight written meanwhile is converted anew, and one converted without gradients gets them
        autocast(function()
            pg.no_grad(function() F.linear(x, w) end)
            assert.is_true(F.linear(x, w).requires_grad)
            pg.no_grad(function() w:fill_(2) end)
            close(F.linear(x, w):to(pg.float32), pg.full({ 2, 3 }, 6), 0)
        end)
        -- the copies do not outlive the region, nor do scopes end them early
        autocast(function()
            local first = pg.scope(function() return F.linear(x, w) end)
            close(F.linear(x, w):to(pg.float32), first:to(pg.float32), 0)
        end)
    end)

    it("takes several backward passes in one region", function()
        local w, x = pg.ones(2, 2):requires_grad_(), pg.ones(2, 2)
        autocast(function()
            for _ = 1, 3 do F.linear(x, w):sum():backward() end
        end)
        close(w.grad, pg.full({ 2, 2 }, 6), 0)
    end)

    it("says what does not fit", function()
        refuses("autocast: expected a device type, 'cpu' or 'cuda', got 'gpu'", function()
            pg.autocast("gpu", print)
        end)
        refuses("autocast: expected dtype float16 or bfloat16, got float32", function()
            pg.autocast("cpu", { dtype = pg.float32 }, print)
        end)
        refuses("autocast: expected a function, got nil", function() pg.autocast("cpu", {}) end)
        refuses("unknown option dtyp", function() pg.autocast("cpu", { dtyp = pg.bfloat16 }, print) end)
    end)
end)

describe("set_float32_matmul_precision", function()
    it("lets CUDA round factors, and nothing else", function()
        assert.are.equal("highest", pg.get_float32_matmul_precision())
        local x = pg.tensor { { 1 + 2 ^ -12 } }
        local exact = x:matmul(pg.ones(1, 1)):item()
        assert.are.equal(1 + 2 ^ -12, exact)
        pg.set_float32_matmul_precision("high")
        local rounded = x:matmul(pg.ones(1, 1)):item()
        pg.set_float32_matmul_precision("highest")
        assert.are.equal(exact, x:matmul(pg.ones(1, 1)):item())
        if kind == "cpu" then assert.are.equal(exact, rounded) end
        if kind == "cuda" and pg.cuda.is_emulated and pg.cuda.is_emulated() then assert.are.equal(1, rounded) end
        refuses("expected 'highest', 'high' or 'medium', got string \"low\"", function()
            pg.set_float32_matmul_precision("low")
        end)
    end)
end)

describe("GradScaler", function()
    local function setup(options)
        local w = nn.Parameter(pg.ones(3))
        local opt = pg.optim.SGD({ w }, { lr = 1 })
        options = options or {}
        options.init_scale = options.init_scale or 8
        return w, opt, pg.amp.GradScaler(device, options)
    end

    it("scales the loss and unscales before the step", function()
        local w, opt, scaler = setup()
        local loss = (w * pg.tensor { 1, 2, 3 }):sum()
        local scaled = scaler:scale(loss)
        assert.are.equal(8 * loss:item(), scaled:item())
        scaled:backward()
        close(w.grad, pg.tensor { 8, 16, 24 }, 0)
        scaler:unscale_(opt)
        close(w.grad, pg.tensor { 1, 2, 3 }, 0)
        scaler:step(opt)
        scaler:update()
        close(w:detach(), pg.tensor { 0, -1, -2 }, 0)
        assert.are.equal(8, scaler:get_scale())
    end)

    it("skips a step with inf or nan and backs off, then grows", function()
        local w, opt, scaler = setup { growth_interval = 2 }
        local function train(factor)
            opt:zero_grad()
            scaler:scale((w * factor):sum()):backward()
            scaler:step(opt)
            scaler:update()
            return scaler:get_scale()
        end
        for _, factor in ipairs { math.huge, 0 / 0 } do
            local before = w:detach():clone()
            local scale = scaler:get_scale()
            assert.are.equal(scale / 2, train(factor))
            close(w:detach(), before, 0)
        end
        assert.are.equal(2, scaler:get_scale())
        assert.are.equal(2, train(1))
        assert.are.equal(4, train(1))
        assert.are.equal(4, train(1))
        assert.are.equal(2, train(math.huge))
        assert.are.equal(2, train(1))
        close(w:detach(), pg.full({ 3 }, -3), 0)
    end)

    it("goes PyTorch's way, step by step", function()
        local s = fixture.read("fixtures/ops/data/autocast.json", "python3 fixtures/ops/generate_ops.py").scaler
        local special = { inf = math.huge, nan = 0 / 0 }
        local w = nn.Parameter(pg.ones(3))
        local opt = pg.optim.SGD({ w }, { lr = 0.25 })
        local scaler = pg.amp.GradScaler(device, s.options)
        assert.is_true(#s.steps > 10)
        for k, step in ipairs(s.steps) do
            opt:zero_grad()
            scaler:scale((w * (special[s.factors[k]] or tonumber(s.factors[k]))):sum()):backward()
            scaler:step(opt)
            scaler:update()
            assert.are.equal(step.scale, scaler:get_scale())
            assert.are.equal(step.growth_tracker, scaler:state_dict()._growth_tracker)
            close(w:detach(), pg.tensor(step.w), 0)
        end
    end)

    it("does not grow to infinity", function()
        local w, opt, scaler = setup { growth_interval = 1, init_scale = 2 ^ 127 }
        scaler:scale((w * 0):sum()):backward()
        scaler:step(opt)
        scaler:update()
        assert.are.equal(2 ^ 127, scaler:get_scale())
    end)

    it("saves and loads its state, and takes a scale", function()
        local w, opt, scaler = setup { growth_interval = 5 }
        scaler:scale(w:sum()):backward()
        scaler:step(opt)
        scaler:update()
        local state = scaler:state_dict()
        assert.are.same({
            scale = 8, growth_factor = 2, backoff_factor = 0.5, growth_interval = 5, _growth_tracker = 1,
        }, state)
        local _, _, other = setup()
        other:load_state_dict(state)
        assert.are.same(state, other:state_dict())
        scaler:update(32)
        assert.are.equal(32, scaler:get_scale())
        local off = pg.amp.GradScaler(device, { enabled = false })
        assert.are.same({}, off:state_dict())
        assert.are.equal(w, off:scale(w))
    end)

    it("checks several optimizers and dtypes", function()
        local a, b = nn.Parameter(pg.ones(2)), nn.Parameter(pg.ones(2, { dtype = pg.float64 }))
        local one, two = pg.optim.SGD({ a }, { lr = 1 }), pg.optim.SGD({ b }, { lr = 1 })
        local scaler = pg.amp.GradScaler(device, { init_scale = 4 })
        scaler:scale((a * math.huge):sum() + b:sum()):backward()
        scaler:step(one)
        scaler:step(two)
        scaler:update()
        close(a:detach(), pg.ones(2), 0)
        close(b:detach(), pg.zeros(2, { dtype = pg.float64 }), 0)
        assert.are.equal(2, scaler:get_scale())
    end)

    it("says what is out of order", function()
        local w, opt, scaler = setup()
        refuses("update: the scale does not exist yet", function() scaler:update() end)
        scaler:scale(w:sum())
        refuses("update: no inf checks were recorded", function() scaler:update() end)
        refuses("step: the optimizer has no gradients", function() scaler:step(opt) end)
        local _, opt2, scaler2 = setup()
        scaler2:scale(w:sum()):backward()
        local opt3 = pg.optim.SGD({ w }, { lr = 1 })
        scaler2:unscale_(opt3)
        refuses("unscale_: already called on this optimizer since the last update()", function()
            scaler2:unscale_(opt3)
        end)
        scaler2:step(opt3)
        refuses("step: already called since the last update()", function() scaler2:step(opt3) end)
        refuses("unscale_: called after step()", function() scaler2:unscale_(opt3) end)
        refuses("growth_factor must be above 1, got number 1", function()
            pg.amp.GradScaler(device, { growth_factor = 1 })
        end)
        refuses("attempting to unscale float16 gradients", function()
            local h = nn.Parameter(pg.ones(2, { dtype = pg.float16 }))
            h.grad = pg.ones(2, { dtype = pg.float16 })
            scaler2:unscale_ { param_groups = { { params = { h } } } }
        end)
        assert.is_table(opt2)
    end)
end)
