-- Every row of the op table with a gradient: against finite differences, and its fused form against its composite one.

local pg = require "perigee"
local core = require "perigee.ffi"
local wrapper = require "perigee.wrapper"
local samples = require "spec.support.samples"

local function tensors_of(...)
    local list = {}
    for k = 1, select("#", ...) do
        local v = (select(k, ...))
        if pg.is_tensor(v) then
            if v.requires_grad then list[#list + 1] = v end
        else
            for _, t in ipairs(v) do
                if t.requires_grad then list[#list + 1] = t end
            end
        end
    end
    return list
end

local function run(op, sample)
    if sample.call then return sample.call(op, unpack(sample)) end
    return op(unpack(sample))
end

local function differs(a, b)
    if (a == nil) ~= (b == nil) then return true end
    if a == nil then return false end
    local x, y = a:detach():reshape(-1):totable(), b:detach():reshape(-1):totable()
    for k = 1, #x do
        local same = math.abs(x[k] - y[k]) <= 1e-9 * (1 + math.abs(y[k]))     -- false for NaNs
        if not same then return true end
    end
    return false
end

describe("gradients of", function()
    for _, row in ipairs(core.rows) do
        if row.attrs.differentiable and not row.alias then
            it(row.signature, function()
                local list = samples[row.symbol]
                assert.is_truthy(list, "spec/support/samples.lua has no sample of " .. row.symbol)
                local op = wrapper.of_rows({ row })
                for _, sample in ipairs(list) do
                    local inputs = { unpack(sample) }
                    local function f(...)
                        local again = { ... }
                        again.call = sample.call
                        return run(op, again)
                    end
                    assert.is_true(pg.autograd.gradcheck(f, inputs))
                    if row.attrs.grad2 then
                        assert.is_true(pg.autograd.gradgradcheck(f, inputs))
                        -- Without create_graph a rule may use its fused form.
                        local wanted = {}
                        for _, x in ipairs(inputs) do
                            if x.requires_grad then wanted[#wanted + 1] = x end
                        end
                        local function grads(create_graph)
                            local outputs = tensors_of(run(op, sample))
                            local seeds = {}
                            for k, output in ipairs(outputs) do
                                local o = output:detach()
                                seeds[k] = o * 0 + (k + 0.5) + o * o
                            end
                            return { pg.autograd.grad(outputs, wanted, {
                                grad_outputs = seeds, create_graph = create_graph, allow_unused = true,
                            }) }
                        end
                        local fused, composite = grads(false), grads(true)
                        for k = 1, #wanted do
                            assert.is_false(differs(fused[k], composite[k]), "the fused gradient differs")
                        end
                    end
                end
            end)
        end
    end
end)

describe("gradcheck", function()
    it("finds a wrong gradient", function()
        local Wrong = pg.autograd.Function("Wrong")
        function Wrong.forward(ctx, x)
            ctx:save_for_backward(x)
            return x * x
        end
        function Wrong.backward(ctx, grad)
            return grad * ctx.saved_tensors[1] * 3
        end
        local x = samples.real(3)
        local ok, message = pg.autograd.gradcheck(Wrong.apply, x, { raise = false })
        assert.is_false(ok)
        assert.is_truthy(message:find("differences give", 1, true))
        assert.has_error(function() pg.autograd.gradcheck(Wrong.apply, x) end)
    end)

    it("finds a gradient that is missing", function()
        local ok = pg.autograd.gradcheck(function(x) return x * x:detach() end, samples.real(3), { raise = false })
        assert.is_false(ok)
    end)

    it("finds a wrong second gradient", function()
        local Once = pg.autograd.Function("Once")
        function Once.forward(ctx, x)
            ctx:save_for_backward(x)
            return x * x * x
        end
        function Once.backward(ctx, grad)
            local x = ctx.saved_tensors[1]
            return grad * (x * x):detach() * 3      -- right, but its own gradient with respect to x is lost
        end
        local x = samples.real(3)
        assert.is_true(pg.autograd.gradcheck(Once.apply, x))
        assert.is_false((pg.autograd.gradgradcheck(Once.apply, x, { raise = false })))
    end)

    it("says what it needs", function()
        local x = pg.tensor({ 1 }, { requires_grad = true })
        assert.has_error(function() pg.autograd.gradcheck(nil, x) end)
        local ok, message = pcall(pg.autograd.gradcheck, function(v) return v end, x)
        assert.is_false(ok)
        assert.is_truthy(message:find("pg.float64", 1, true))
        ok, message = pcall(pg.autograd.gradcheck, function(v) return v end, x:detach():double())
        assert.is_false(ok)
        assert.is_truthy(message:find("no input requires a gradient", 1, true))
    end)
end)
