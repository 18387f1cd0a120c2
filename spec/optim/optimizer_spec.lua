local json = require("perigee.json")
local pg = require("perigee")
local system = require("perigee.system")

local nn, optim = pg.nn, pg.optim

local function fixture(name)
    local file = "fixtures/ops/data/" .. name .. ".json"
    local text = assert(system.read_file(file), file .. " is missing; write it with fixtures/ops/generate_ops.py")
    return json.decode(text)
end

local WORDS = { nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge }

-- A fixture's array; its digits stand for a number of its own dtype, which is then converted.
local function tensor_of(array, dtype)
    local values = {}
    for i, value in ipairs(array.data) do
        values[i] = WORDS[value] or value
    end
    return pg.tensor(values, { dtype = pg[array.dtype] }):reshape({ unpack(array.shape) }):to(dtype or pg[array.dtype])
end

local function assert_close(expected, actual, tolerance, what)
    assert.same(table.concat(expected.shape, ","), table.concat(actual.shape, ","))
    local difference = (expected - actual):abs()
    local bound = expected:abs() * tolerance + tolerance
    local fine = difference:le(bound):logical_or(expected:isnan():logical_and(actual:isnan()))
        :logical_or(expected:eq(actual))
    assert.is_true(fine:all():item(), ("%s: expected %s, got %s"):format(what, tostring(expected), tostring(actual)))
end

describe("optimizers", function()
    it("follow PyTorch's, step by step", function()
        local doc = fixture("optimizers")
        assert.is_true(#doc.cases >= 20)
        for _, case in ipairs(doc.cases) do
            local dtype = pg[case.dtype]
            local params, groups = {}, {}
            for i, array in ipairs(doc.start) do
                params[i] = tensor_of(array, dtype):requires_grad_()
            end
            local text = json.encode(case.groups)
            for k, group in ipairs(case.groups) do
                local members = {}
                for i, number in ipairs(group.params) do
                    members[i] = params[number + 1]
                end
                group.params = members
                groups[k] = group
            end
            local optimizer = optim[case.optimizer](groups)
            for step, gradients in ipairs(doc.gradients) do
                for i, array in ipairs(gradients.of) do
                    params[i].grad = array ~= json.null and tensor_of(array, dtype) or nil
                end
                pg.scope(optimizer.step, optimizer)
                for i, expected in ipairs(case.after[step]) do
                    assert_close(tensor_of(expected), params[i]:detach(), case.dtype == "float64" and 1e-12 or 2e-6,
                        ("%s %s step %d parameter %d"):format(case.optimizer, text, step, i))
                end
            end
        end
    end)

    it("clip as PyTorch clips", function()
        local doc = fixture("clipping")
        assert.is_true(#doc.cases >= 5)
        for _, case in ipairs(doc.cases) do
            local params = {}
            for i, array in ipairs(case.before) do
                params[i] = pg.zeros(1, { requires_grad = true })
                if array ~= json.null then
                    local grad = tensor_of(array)
                    params[i] = pg.zeros_like(grad):requires_grad_()
                    params[i].grad = grad
                end
            end
            local total = nn.utils.clip_grad_norm_(params, case.max_norm, {
                norm_type = WORDS[case.norm_type] or case.norm_type,
            })
            assert_close(tensor_of(case.total), total, 1e-6, "total")
            for i, array in ipairs(case.after) do
                if array == json.null then
                    assert.is_nil(params[i].grad)
                else
                    assert_close(tensor_of(array), params[i].grad, 1e-6, "gradient " .. i)
                end
            end
        end
    end)

    local MAKERS = {
        SGD = function(p) return optim.SGD(p, { lr = 0.05, momentum = 0.9, nesterov = true }) end,
        Adam = function(p) return optim.Adam(p, { lr = 0.05 }) end,
        AdamW = function(p) return optim.AdamW(p, { lr = 0.05, amsgrad = true }) end,
    }

    for name, make in pairs(MAKERS) do
        it(name .. " trains inside a scope, and goes on from a state dict bit for bit", function()
            pg.manual_seed(1)
            local model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
            local x = pg.randn(16, 4)
            local y = x:sum(1, { keepdim = true })
            local optimizer = make(model:parameters())
            local scheduler = optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
            local function step(m, o, s)
                return pg.scope(function()
                    local loss = nn.functional.mse_loss(m(x), y)
                    o:zero_grad()
                    loss:backward()
                    nn.utils.clip_grad_norm_(m:parameters(), 1)
                    o:step()
                    s:step()
                    return loss:item()
                end)
            end
            local first, last
            for i = 1, 5 do
                last = step(model, optimizer, scheduler)
                first = first or last
                assert.is_true(i == 1 or last < first)
            end
            -- A second run from the state of the first.
            local twin = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
            twin:load_state_dict(model:state_dict())
            local other = make(twin:parameters())
            other:load_state_dict(optimizer:state_dict())
            local schedule = optim.lr_scheduler.StepLR(other, 4, 0.5)
            schedule:load_state_dict(scheduler:state_dict())
            for _ = 1, 5 do
                assert.equal(step(model, optimizer, scheduler), step(twin, other, schedule))
            end
            for key, t in model:state_dict():iter() do
                assert.is_true(t:eq(twin:state_dict()[key]):all():item())
            end
        end)
    end

    for name, make in pairs(MAKERS) do
        it(name .. " outlives the scope that it was made in", function()
            local w, optimizer
            pg.scope(function()
                pg.scope(function()
                    w = pg.ones(3, { requires_grad = true })
                    optimizer = make { w }
                    for _ = 1, 3 do
                        w.grad = pg.ones(3)
                        optimizer:step()
                    end
                end)
            end)
            w.grad = pg.ones(3)
            optimizer:step()
            assert.is_true(w:detach():sum():item() < 3)
            assert.equal(1, #optimizer:state_dict().param_groups[1].params)
        end)
    end

    it("have PyTorch's state dicts", function()
        local a, b, c = pg.ones(2, { requires_grad = true }), pg.ones(3, { requires_grad = true }), pg.ones(1)
        local optimizer = optim.Adam({ { params = { a } }, { params = { b, c }, lr = 0.5 } }, {
            lr = 0.1, betas = { 0.8, 0.9 },
        })
        b.grad = pg.ones(3)
        optimizer:step()
        local state = optimizer:state_dict()
        assert.same({ 0 }, state.param_groups[1].params)
        assert.same({ 1, 2 }, state.param_groups[2].params)
        assert.equal(0.5, state.param_groups[2].lr)
        assert.same({ 0.8, 0.9 }, state.param_groups[1].betas)
        assert.is_nil(state.state[0])
        assert.equal(1, state.state[1].step)
        assert.equal(3, state.state[1].exp_avg:numel())
        assert.equal(3, state.state[1].exp_avg_sq:numel())
        -- PyTorch keeps the step as a tensor: that loads too.
        state.state[1].step = pg.tensor(7)
        local other = optim.Adam { { params = { pg.ones(2) } }, { params = { pg.ones(3), pg.ones(1) } } }
        other:load_state_dict(state)
        assert.equal(0.5, other.param_groups[2].lr)
        assert.equal(7, other.state[other.param_groups[2].params[1].id].step)
        -- Copies: the one does not change with the other.
        local moment = other.state[other.param_groups[2].params[1].id].exp_avg
        b.grad = pg.ones(3) * 100
        local before = moment:totable()
        optimizer:step()
        assert.same(before, moment:totable())
    end)

    it("refuse a state that does not fit", function()
        local optimizer = optim.Adam { pg.ones(2), pg.ones(3) }
        local function why(state)
            local ok, message = pcall(optimizer.load_state_dict, optimizer, state)
            assert.is_false(ok)
            return message
        end
        assert.matches("expected a table with state", why(nil))
        assert.matches("different number of parameter groups", why { state = {}, param_groups = {} })
        assert.matches("doesn't match the size", why { state = {}, param_groups = { { params = { 0 } } } })
        assert.matches("has shape %[4%], the parameter %[2%]", why {
            state = { [0] = { step = 1, exp_avg = pg.ones(4) } }, param_groups = { { params = { 0, 1 } } },
        })
        assert.matches("in no group", why { state = { [5] = {} }, param_groups = { { params = { 0, 1 } } } })
    end)

    it("take a closure", function()
        local w = pg.tensor({ 4 }, { requires_grad = true })
        local optimizer = optim.SGD({ w }, 0.25)
        local loss = pg.no_grad(function()
            return optimizer:step(function()
                optimizer:zero_grad()
                local l = (w * w):sum()
                l:backward()
                return l
            end)
        end)
        assert.equal(16, loss:item())
        assert.equal(2, w:item())
    end)

    it("count in-place changes for the tape", function()
        local w = pg.ones(2, { requires_grad = true })
        local loss = (w * w):sum()
        w.grad = pg.ones(2)
        optim.SGD({ w }, { lr = 0.1 }):step()
        assert.has_error(function() loss:backward() end)
    end)

    it("step tensors of any strides", function()
        local base = pg.arange(6):to(pg.float32):view(2, 3)
        local w = base:t():detach():requires_grad_()
        w.grad = pg.ones(3, 2)
        optim.SGD({ w }, { lr = 1 }):step()
        assert.same({ { -1, 0, 1 }, { 2, 3, 4 } }, base:totable())
        local v = base:t():detach():requires_grad_()
        v.grad = pg.ones(2, 3):t()
        local adam = optim.Adam({ v }, { lr = 1, eps = 0 })
        adam:step()
        assert.same({ { -2, -1, 0 }, { 1, 2, 3 } }, base:totable())
    end)

    it("take groups added later, and empty tensors", function()
        local a, b = pg.ones(1, { requires_grad = true }), pg.zeros(0, { requires_grad = true })
        local optimizer = optim.SGD({ a }, { lr = 1 })
        optimizer:add_param_group { params = b, lr = 2 }
        a.grad, b.grad = pg.ones(1), pg.zeros(0)
        optimizer:step()
        assert.same({ 0 }, a:totable())
        optimizer:zero_grad(false)
        assert.same({ 0 }, a.grad:totable())
        optimizer:zero_grad()
        assert.is_nil(a.grad)
    end)

    it("drop the memory of old states", function()
        local w = pg.zeros(1000, { requires_grad = true })
        local optimizer = optim.AdamW({ w }, { lr = 0.1 })
        local function step()
            pg.scope(function()
                w.grad = nil
                (w - 1):square():sum():backward()
                optimizer:step()
            end)
        end
        for _ = 1, 20 do
            step()
        end
        pg.collect()
        local before = pg.memory_stats().live_tensors
        for _ = 1, 200 do
            step()
        end
        pg.collect()
        assert.equal(before, pg.memory_stats().live_tensors)
    end)

    it("refuse what makes no sense", function()
        local w = pg.ones(2, { requires_grad = true })
        local function why(make, ...)
            local ok, message = pcall(make, ...)
            assert.is_false(ok)
            return message
        end
        assert.matches("empty parameter list", why(optim.SGD, {}))
        assert.matches("got a tensor", why(optim.SGD, w))
        assert.matches("list of tensors", why(optim.SGD, nil))
        assert.matches("params%[1%] is number 3", why(optim.SGD, { 3 }))
        assert.matches("non%-leaf", why(optim.SGD, { w * 2 }))
        assert.matches("comes again", why(optim.SGD, { w, w }))
        assert.matches("comes again", why(optim.SGD, { { params = { w } }, { params = { w } } }))
        assert.matches("invalid lr", why(optim.SGD, { w }, { lr = -1 }))
        assert.matches("invalid lr", why(optim.Adam, { w }, { lr = "fast" }))
        assert.matches("invalid beta parameter at index 1", why(optim.Adam, { w }, { betas = { 0.9, 1 } }))
        assert.matches("list of two", why(optim.Adam, { w }, { betas = 0.9 }))
        assert.matches("Nesterov", why(optim.SGD, { w }, { nesterov = true }))
        assert.matches("did you mean momentum", why(optim.SGD, { w }, { momentun = 0.9 }))
        assert.matches("unknown option beta in a group", why(optim.SGD, { { params = { w }, beta = 1 } }))
        w.grad = nil
        local optimizer = optim.Adam { w }
        optimizer:step()      -- nothing to do
        assert.has_error(function() w.grad = pg.ones(3) end)
        local ids = pg.int64 { 1 }
        local odd = optim.SGD { ids }
        odd:step()
    end)

    it("print their groups", function()
        local text = tostring(optim.AdamW({ pg.ones(1) }, { lr = 1e-3 }))
        assert.matches("^AdamW %(\nParameter Group 0\n    amsgrad: False\n    betas: %(0%.9, 0%.999%)\n", text)
        assert.matches("\n    eps: 1e%-08\n", text)
        assert.matches("    lr: 0%.001\n", text)
    end)
end)

describe("half parameters", function()
    -- Steps of float32 and of half parameters from the same numbers; halves are rounded once a step.
    local function run(dtype, make)
        local p = pg.sin(pg.arange(700):to(pg.float32)):to(dtype)
        p = pg.nn.Parameter(p)
        local opt = make { p }
        for k = 1, 4 do
            p.grad = pg.cos(pg.arange(700):to(pg.float32) * k):to(dtype)
            opt:step()
        end
        assert.equal(dtype, p.dtype)
        return p:detach():to(pg.float32), opt.state[p.id]
    end

    it("are stepped as PyTorch steps them, with states of their dtype", function()
        for _, make in ipairs {
            function(p) return optim.SGD(p, { lr = 0.1 }) end,
            function(p) return optim.SGD(p, { lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.1 }) end,
            function(p) return optim.Adam(p, { lr = 0.01, amsgrad = true }) end,
            function(p) return optim.AdamW(p, { lr = 0.01, maximize = true }) end,
        } do
            local exact = run(pg.float32, make)
            for dtype, tolerance in pairs { [pg.bfloat16] = 0.03, [pg.float16] = 0.004 } do
                local p, state = run(dtype, make)
                assert.is_true((p - exact):abs():max():item() < tolerance)
                assert.is_true((p - exact):abs():max():item() > 0)
                for _, value in pairs(state or {}) do
                    if pg.is_tensor(value) and value:numel() == 700 then assert.equal(dtype, value.dtype) end
                end
            end
        end
    end)

    it("have norms, and are clipped", function()
        for _, dtype in ipairs { pg.bfloat16, pg.float16 } do
            local p = pg.nn.Parameter(pg.zeros(3, { dtype = dtype }))
            p.grad = pg.tensor({ 3, 0, 4 }, { dtype = dtype })
            local norm = pg.nn.utils.clip_grad_norm_({ p }, 1)
            assert.equal(dtype, norm.dtype)
            assert.equal(5, norm:item())
            assert.is_true((p.grad:to(pg.float32) - pg.tensor { 0.6, 0, 0.8 }):abs():max():item() < 4e-3)
        end
    end)
end)
