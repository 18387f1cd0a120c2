-- pg.cuda.graph: captured functions do what the functions do, bit for bit.
local pg = require "perigee"
local on_cuda = require "spec.support.on_cuda"

local nn, F = pg.nn, pg.nn.functional

local function refused(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(tostring(message):find(pattern, 1, true), message)
end

on_cuda("spec/engine/cuda_graph_spec.lua", function()
    describe("a captured function", function()
        -- Trains a small network; gives the losses and what the parameters are in the end.
        local function train(make_optimizer, captured, steps)
            pg.manual_seed(3)
            local model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.25), nn.Linear(16, 4)):cuda()
            local opt = make_optimizer(model:parameters())
            local schedule = pg.optim.lr_scheduler.CosineAnnealingLR(opt, { T_max = steps })
            local function step(x, y)
                opt:zero_grad()
                local loss = F.cross_entropy(model(x), y)
                loss:backward()
                opt:step()
                return loss:detach()
            end
            if captured then step = pg.cuda.graph(step) end
            local losses = {}
            for k = 1, steps do
                local x, y = pg.randn(32, 8, { device = "cuda" }), pg.randint(0, 4, { 32 }, { device = "cuda" })
                losses[k] = step(x, y):item()
                schedule:step()
            end
            local values = {}
            for _, p in ipairs(model:parameters()) do values[#values + 1] = p:detach():cpu():totable() end
            return losses, values, pg.rand(3, { device = "cuda" }):totable(), opt
        end

        for name, make in pairs {
            AdamW = function(p) return pg.optim.AdamW(p, { lr = 0.01, weight_decay = 0.1 }) end,
            SGD = function(p) return pg.optim.SGD(p, { lr = 0.1, momentum = 0.9, nesterov = true }) end,
            ["Adam with amsgrad"] = function(p) return pg.optim.Adam(p, { lr = 0.01, amsgrad = true }) end,
        } do
            it("trains as the function does: dropout, a schedule and " .. name, function()
                local losses, values, drawn, opt = train(make, false, 8)
                local captured_losses, captured_values, captured_drawn, captured_opt = train(make, true, 8)
                assert.same(losses, captured_losses)
                assert.same(values, captured_values)
                -- the generator stands where it would stand
                assert.same(drawn, captured_drawn)
                local a, b = opt:state_dict().state[0], captured_opt:state_dict().state[0]
                assert.equal(a.step, b.step)
                if name ~= "SGD" then assert.equal(8, a.step) end
                assert.is_true(losses[1] ~= losses[8])
            end)
        end

        -- Embedding, attention with dropout, logits that their gradient takes over, clipped gradients; in bfloat16 too.
        local function train_gpt(captured, dtype)
            pg.manual_seed(1)
            local model = pg.models.gpt.GPT({
                vocab_size = 50, block_size = 16, n_layer = 1, n_head = 2, n_embd = 32, dropout = 0.1,
            }):cuda()
            local opt = pg.optim.AdamW(model:parameters(), { lr = 0.01 })
            local function step(x, y)
                opt:zero_grad()
                local loss
                if dtype then
                    loss = pg.autocast("cuda", { dtype = dtype }, function() return model:loss(x, y) end)
                else
                    loss = model:loss(x, y)
                end
                loss:backward()
                local norm = nn.utils.clip_grad_norm_(model:parameters(), 0.5)
                opt:step()
                return loss:detach(), norm
            end
            if captured then step = pg.cuda.graph(step) end
            local seen = {}
            for _ = 1, 4 do
                local x, y = pg.randint(0, 50, { 2, 16 }, { device = "cuda" }), pg.randint(0, 50, { 2, 16 },
                    { device = "cuda" })
                local loss, norm = step(x, y)
                seen[#seen + 1], seen[#seen + 2] = loss:item(), norm:item()
            end
            return seen
        end

        it("trains a GPT as the function does, in float32 and in bfloat16", function()
            local plain, low = train_gpt(false), train_gpt(false, pg.bfloat16)
            assert.same(plain, train_gpt(true))
            assert.same(low, train_gpt(true, pg.bfloat16))
            assert.is_true(plain[1] ~= low[1])
        end)

        it("takes new arguments, and keeps what it made to itself", function()
            local calls = 0
            local f = pg.cuda.graph(function(x, options)
                calls = calls + 1
                local y = x * options.scale + options.shift
                for _ = 1, 10 do y = y + 1 end
                return y, y:sum()
            end)
            for k = 1, 6 do
                local x = pg.full({ 100 }, k, { device = "cuda" })
                local y, sum = f(x, { scale = 2, shift = pg.full({ 100 }, 10 * k, { device = "cuda" }) })
                local other = pg.full({ 100 }, -1, { device = "cuda" })
                assert.equal((2 * k + 10 * k + 10) * 100, sum:item())
                assert.equal(12 * k + 10, y[99]:item())
                assert.equal(-100, other:sum():item())
            end
            assert.equal(2, calls)
            assert.is_true(f.captured)
            local x = pg.zeros(100, { device = "cuda" })
            refused("argument 1: captured with", f, pg.zeros(99, { device = "cuda" }), { scale = 2, shift = x })
            refused("argument 2[scale]: captured with 2, got 3", f, x, { scale = 3, shift = x })
            refused("captured with 2 arguments, got 1", f, x)
            refused("argument 1: a Tensor was captured", f, 3, { scale = 2, shift = x })
        end)

        it("changes tensors in place", function()
            local total = pg.zeros(3, { device = "cuda" })
            local f = pg.cuda.graph(function(x)
                total:add_(x)
                total:mul_(2)
            end)
            local here = pg.zeros(3)
            for k = 1, 5 do
                f(pg.full({ 3 }, k, { device = "cuda" }))
                here = (here + k) * 2
            end
            assert.same(here:totable(), total:totable())
        end)

        it("draws other numbers each time, those that calls would draw", function()
            local function draw() return pg.randn(10, { device = "cuda" }) + pg.rand(10, { device = "cuda" }) end
            pg.manual_seed(9)
            local expected = {}
            for k = 1, 5 do expected[k] = draw():totable() end
            pg.manual_seed(9)
            local f = pg.cuda.graph(draw, { warmup = 0 })
            for k = 1, 5 do assert.same(expected[k], f():totable()) end
            pg.manual_seed(9)
            assert.same(expected[1], f:replay():totable())
        end)

        it("may not read from the device, nor take the host's values; afterwards all is as before", function()
            local x = pg.ones(4, { device = "cuda" })
            local function try(pattern, f) refused(pattern, pg.cuda.graph(f, { warmup = 0 })) end
            try("values cannot be read from cuda:0 while a graph is captured", function() return x:sum():item() end)
            try("values cannot be read from cuda:0", function() return tostring(x) end)
            try("give them to the captured function as arguments", function() return x + pg.tensor({ 1, 2, 3, 4 },
                { device = "cuda" }) end)
            try("cannot be waited for while a graph is captured", function() pg.cuda.synchronize() end)
            try("a generator cannot be set while a graph is captured", function() pg.manual_seed(1) end)
            try("a graph is being captured already", function() pg.cuda.graph(function() end, { warmup = 0 })() end)
            try("first step cannot be captured", function()
                local p = pg.ones(2, { device = "cuda", requires_grad = true })
                local opt = pg.optim.Adam({ p })
                p:sum():backward()
                opt:step()
            end)
            try("\"nonzero\" failed on cuda:0: ", function() return x[x:gt(0)] end)
            try("planned", function() error("planned") end)
            assert.is_false(pg.cuda.is_current_stream_capturing())
            assert.is_true(pg.cuda.current_stream() == pg.cuda.default_stream())
            assert.equal(4, x:sum():item())
            local f = pg.cuda.graph(function(a) return a end, { warmup = 0 })
            refused("expected arguments on a CUDA device", f, pg.ones(2))
            refused("expected a function, got the number 3", pg.cuda.graph, 3)
        end)

        it("raises what its kernels find wrong at the next call that waits", function()
            local x = pg.arange(10, { device = "cuda" })
            local f = pg.cuda.graph(function(i) return x:gather(0, i) end)
            for k = 1, 3 do
                assert.equal(k, f(pg.int64({ k }, { device = "cuda" }))[0]:item())
            end
            f(pg.int64({ 12 }, { device = "cuda" }))
            refused("gather: index 12 is out of range for a dimension of size 10", pg.cuda.synchronize)
            assert.equal(5, f(pg.int64({ 5 }, { device = "cuda" }))[0]:item())
        end)

        it("gives its memory back when it is dropped", function()
            local function live()
                collectgarbage() collectgarbage()
                pg.cuda.empty_cache()
                return pg.cuda.memory_reserved()
            end
            local x = pg.ones(1000, 1000, { device = "cuda" })
            local function once()
                local f = pg.cuda.graph(function(y) return (y + x) * 2 end)
                for _ = 1, 3 do f(x) end
                return f(x):sum():item()
            end
            assert.equal(4e6, once())
            local before = live()
            for _ = 1, 5 do once() end
            assert.equal(before, live())
        end)
    end)
end)
