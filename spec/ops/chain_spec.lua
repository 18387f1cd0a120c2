--- Chains of pointwise ops in backward runs: one kernel, the bits of the ops run one by one.

local numbers = require "spec.support.numbers"
local pg = require "perigee"
local shell = require "spec.build.shell"
local every_op = require "spec.support.every_op"

local chains = pg.backends.chains

local on_cpu = pg.get_default_device() == "cpu"
-- The cpu makes chains of tensors that its caches do not hold; the row length is a multiple of no pack.
local ROWS, COLUMNS = on_cpu and 1030 or 12, on_cpu and 1021 or 59

--- f() with chains off or on: its tensors, and how many chains of how many ops ran.
local function with_chains(enabled, f, ...)
    chains.set_enabled(enabled)
    pg.manual_seed(3)
    local kernels, ops = chains.count()
    local results = { pcall(f, ...) }
    chains.set_enabled(true)
    if not results[1] then error(results[2], 0) end
    local kernels_after, ops_after = chains.count()
    return { unpack(results, 2) }, kernels_after - kernels, ops_after - ops
end

local integers = { [4] = "int32", [8] = "int64", [2] = "int16" }
local function bits(x)
    return x:detach():contiguous():view(pg[integers[x:element_size()]])
end

local function assert_same_bits(expected, actual, what)
    assert.are.equal(#expected, #actual, what)
    for k = 1, #expected do
        assert.are.equal(expected[k].dtype, actual[k].dtype, what)
        local same = pg.equal(bits(expected[k]), bits(actual[k]))
        assert.is_true(same, ("%s, tensor %d"):format(what, k))
    end
end

local function inputs(dtype)
    local list = {}
    for k = 1, 3 do
        list[k] = (pg.rand(ROWS, COLUMNS, { dtype = pg.float32 }) + 0.5):to(dtype):requires_grad_()
    end
    return list
end

--- The gradients of f's sum for three inputs, and the counts.
local function gradients(enabled, dtype, f)
    return with_chains(enabled, function()
        local x = inputs(dtype)
        f(x[1], x[2], x[3]):sum():backward()
        local grads = {}
        for k = 1, 3 do grads[#grads + 1] = x[k].grad end
        return unpack(grads)
    end)
end

-- What the count of kernels and ops is asked of stands beside the expression: a change of a rule changes it.
local expressions = {
    { "one rule of five ops", function(a) return a:erf() end, 1, 5 },
    { "several rules", function(a) return (a:tanh() * 2 + 1):exp():log():sqrt() end, 1, 6 },
    { "masks", function(a, b) return a:clamp(0.7, 1.2) * b:abs() end },
    { "comparisons and a choice", function(a, b, c) return pg.where(a:gt(b), a * c, b:rsqrt()) + pg.maximum(a, c) end },
    { "powers", function(a, b, c) return a:pow(3) * b:pow(0.5) + c:pow(2.5) + a:pow(b) end },
    { "two uses of a gradient", function(a, b, c) return ((a * b):tanh() * c):exp() end },
    { "sums of gradients", function(a, b, c) return a * b + a:sin() * c + (a / b):cos() end },
    { "rows that are broadcast", function(a, b, c)
        return (a * b:select(0, 0)):tanh():exp() * c:narrow(1, 0, 1):sigmoid()
    end },
    { "columns", function(a, b) return (a:t():tanh() * b:t()):exp():log1p() end },
    { "constants of an op", function(a, b)
        return pg.addcmul(a, a:log(), b, { value = 0.25 }):lerp(b:exp2(), 0.3):sinh()
    end },
    { "rare ops", function(a, b) return pg.atan2(a, b):expm1():log10():cosh():tan() end },
}

describe("a backward run's chain", function()
    local dtypes = { "float32", "float64", "bfloat16", "float16" }
    for _, expression in ipairs(expressions) do
        local name, f, kernels, ops = unpack(expression)
        for k, dtype in ipairs(dtypes) do
            if not on_cpu or k <= 2 or kernels then
                it(("gives the bits of its ops run apart: %s, %s"):format(name, dtype), function()
                    local apart, none = gradients(false, pg[dtype], f)
                    local chained, count, steps = gradients(true, pg[dtype], f)
                    assert.are.equal(0, none)
                    assert.is_true(count > 0 and steps > count)
                    if kernels then assert.are.same({ kernels, ops }, { count, steps }) end
                    assert_same_bits(apart, chained, name)
                end)
            end
        end
    end

    it("is cut where it is too long, and stays right", function()
        local function long(a, b)
            local y = a
            for _ = 1, 50 do y = y:sin() * 0.9 + 0.5 end
            return y + b
        end
        local apart = gradients(false, pg.float32, long)
        local chained, count, steps = gradients(true, pg.float32, long)
        assert.is_true(count >= 10 and steps >= 140, ("%d chains, %d ops"):format(count, steps))
        assert_same_bits(apart, chained, "50 sines")
    end)

    it("gives the same bits at every number of threads", function()
        numbers.same_at_every_thread_count(function()
            return gradients(true, pg.float32, function(a, b, c)
                return (a * b:select(0, 0)):erf():exp() + c:clamp(0.7, 1.2):log()
            end)
        end)
    end)

    it("has the values of PyTorch's formula", function()
        local x = inputs(pg.float64)[1]
        x:erf():sum():backward()
        local expected = (x:detach() ^ 2 * -1):exp() * (2 / math.sqrt(math.pi))
        assert.is_true(pg.allclose(x.grad, expected, { rtol = 1e-12, atol = 0 }))
    end)
end)

-- Expressions by chance: each value is made of two or three earlier ones, some of them rows or columns of their own.
local F = pg.nn.functional
local unary = {
    pg.tanh, pg.sigmoid, pg.sin, pg.abs, pg.neg, pg.relu, pg.square, pg.erf, pg.log1p, F.gelu, F.silu,
    function(x) return pg.exp(x:clamp(-3, 3)) end,
}
local binary = { pg.add, pg.sub, pg.mul, pg.maximum, pg.minimum, pg.atan2 }
local function random_expression(seed)
    local state = seed * 7919 + 1
    local function pick(n)
        state = (state * 1103515245 + 12345) % 2147483648
        return math.floor(state / 65536) % n + 1
    end
    return function(a, b, c)
        state = seed * 7919 + 1
        local values = { a, b, c, a:select(0, 0), b:narrow(1, 0, 1) }
        for _ = 1, 14 do
            local x, y = values[pick(#values)], values[pick(#values)]
            local kind = pick(8)
            local value
            if kind <= 3 then
                value = unary[pick(#unary)](x)
            elseif kind <= 6 then
                value = binary[pick(#binary)](x, y)
            elseif kind == 7 then
                value = pg.where(x:gt(0.75), y, values[pick(#values)])
            else
                value = x * 0.5 + pick(3)
            end
            values[#values + 1] = value
        end
        local sum = 0
        for k = 6, #values do sum = values[k]:to(a.dtype):clamp(-4, 4) + sum end
        return sum + a + b + c
    end
end

describe("random expressions", function()
    for _, dtype in ipairs { "float32", "bfloat16", "float64" } do
        it("have the same gradients with and without chains: " .. dtype, function()
            local made, seeds = 0, on_cpu and 2 or shell.watches_races and 6 or 60
            for seed = 1, seeds do
                local f = random_expression(seed)
                local apart = gradients(false, pg[dtype], f)
                local chained, count = gradients(true, pg[dtype], f)
                made = made + count
                assert_same_bits(apart, chained, "expression " .. seed)
            end
            assert.is_true(made > 3 * seeds, ("%d chains"):format(made))
        end)
    end
end)

describe("what is put off", function()
    it("is there when a hook looks", function()
        local function run()
            local seen = {}
            local x = inputs(pg.float32)[1]
            local y = x:erf()
            y:register_hook(function(g) seen[1] = g * 1 end)
            local z = y:exp()
            z:retain_grad()
            z:log10():sum():backward()
            return seen[1], z.grad, x.grad
        end
        assert_same_bits(with_chains(false, run), (with_chains(true, run)), "hook and retained gradient")
    end)

    it("may be replaced by a hook", function()
        local function run()
            local x = inputs(pg.float32)[1]
            local y = x:erf()
            y:register_hook(function(g) return g * 3 end)
            y:exp():sum():backward()
            return x.grad
        end
        assert_same_bits(with_chains(false, run), (with_chains(true, run)), "hook")
    end)

    it("reaches a custom function", function()
        local Triple = pg.autograd.Function("Triple")
        function Triple.forward(_, x) return x * 3 end
        function Triple.backward(_, g) return g * 3 end
        local function run()
            local x = inputs(pg.float32)[1]
            Triple.apply(x:erf()):exp():sum():backward()
            return x.grad
        end
        assert_same_bits(with_chains(false, run), (with_chains(true, run)), "custom function")
    end)

    it("reads a gradient as it was before it is added to", function()
        local function run()
            local x, w = unpack(inputs(pg.float32));
            (x:sin() * w):sum():backward()
            -- each seed is memory that the run adds to, while the other leaf's gradient is still to be computed from it
            for _, seed in ipairs { x.grad, w.grad } do
                (x * w):backward(seed);
                (w:exp() * x):backward(seed)
            end
            return x.grad, w.grad
        end
        assert_same_bits(with_chains(false, run), (with_chains(true, run)), "a gradient as the seed")
    end)

    it("is done before the script changes what it reads", function()
        local function run()
            local x, w = unpack(inputs(pg.float32))
            local loss = (x * w):erf():sum()
            loss:backward()
            local first = w.grad * 1
            pg.no_grad(function()
                x:zero_()
                w:fill_(7)
            end)
            return first, x.grad, w.grad
        end
        assert_same_bits(with_chains(false, run), (with_chains(true, run)), "after a change in place")
    end)

    it("goes where nobody asks for it, and leaves nothing behind", function()
        local function run()
            for _ = 1, 5 do
                local x = inputs(pg.float32)
                pg.autograd.grad((x[1]:erf() * x[2]:tanh()):sum(), { x[1] })
                local y = (x[1] * x[2]):erf():sum()
                y:backward({ retain_graph = true })
                y:backward()
            end
        end
        run()
        collectgarbage() collectgarbage()
        local before = pg.memory_stats and pg.memory_stats().live_tensors
        local bytes = on_cpu and pg.memory_allocated() or pg.cuda.memory_allocated()
        run()
        collectgarbage() collectgarbage()
        assert.are.equal(before, pg.memory_stats and pg.memory_stats().live_tensors)
        assert.are.equal(bytes, on_cpu and pg.memory_allocated() or pg.cuda.memory_allocated())
    end)

    it("is a chain too where the gradient is given to the caller or to a hook", function()
        local function erf(hook)
            local x = inputs(pg.float32)[1]
            local y = x * 1
            if hook then y:register_hook(function(g) return g end) end
            return (pg.autograd.grad(y:erf():sum(), { hook and x or y }))
        end
        for _, hook in ipairs { false, true } do
            local apart = with_chains(false, erf, hook)
            local chained, count, ops = with_chains(true, erf, hook)
            assert.are.same({ 1, 5 }, { count, ops })
            assert_same_bits(apart, chained, "erf")
        end
    end)

    it("leaves alone a run that is recorded", function()
        local _, count = with_chains(true, function()
            local x = inputs(pg.float32)[1]
            local g = pg.autograd.grad(x:erf():sum(), { x }, { create_graph = true })
            g:sum():backward()
            return x.grad
        end)
        -- the first run is recorded, the second is not
        local _, alone = with_chains(true, function()
            local x = inputs(pg.float32)[1]
            return (pg.autograd.grad(x:erf():sum(), { x }, { create_graph = true }))
        end)
        assert.are.equal(0, alone)
        assert.is_true(count > 0)
    end)
end)

describe("every op's gradients", function()
    -- Chains of tensors this small are made on devices alone.
    for _, dtype in ipairs(on_cpu and {} or { "float32", "float64", "float16", "bfloat16" }) do
        it("have the same bits with and without chains: " .. dtype, function()
            local cases = every_op(pg.get_default_device(), { dtype = pg[dtype] })
            local compared, made = 0, 0
            for _, case in ipairs(cases) do
                local ok, apart = pcall(with_chains, false, function() return case.run() end)
                if ok then
                    local chained, count = with_chains(true, function() return case.run() end)
                    compared, made = compared + 1, made + count
                    for k = 1, #apart do
                        if apart[k]:is_floating_point() then
                            assert_same_bits({ apart[k] }, { chained[k] }, case.name)
                        end
                    end
                end
            end
            assert.is_true(compared > 200 and made > 30, ("%d cases, %d chains"):format(compared, made))
        end)
    end
end)

describe("backends.chains", function()
    it("says whether they are made", function()
        assert.is_true(chains.is_enabled())
        chains.set_enabled(false)
        assert.is_false(chains.is_enabled())
        chains.set_enabled(true)
        numbers.refuses("set_enabled: expected true or false, got number 1", function() chains.set_enabled(1) end)
    end)
end)
